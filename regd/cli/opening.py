"""From a configuration to its storage, for commands that work on the files while a daemon may be serving them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from regd.cli.output import Bar, Printer, say
from regd.config import Config, ConfigError, InMemoryStorage, NoStorage, load
from regd.maintenance.blocking import filesystem
from regd.storage import layout
from regd.storage.driver import StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.storage.layout import Path

__all__ = ["CannotRun", "holder", "opened", "read_config", "to_an_end"]

#: The kernel's list of locks, proc(5).
_LOCKS: Final = "/proc/locks"


class CannotRun(Exception):
    """
    Why a command did not do anything.

    :ivar lines: what to tell the operator, each with what to do about it.
    """

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        super().__init__("; ".join(lines))


def read_config(path: str | None, environ: Mapping[str, str]) -> Config:
    """
    :param path: the file; ``None`` for where it usually is.
    :raises CannotRun: when it cannot be used, with every problem in it.
    """
    try:
        return load(path, environ).config
    except ConfigError as error:
        raise CannotRun(*error.problems) from None


def to_an_end(work: Callable[[Bar, Printer], int], *, quiet: bool, failed: int) -> int:
    """
    Do what a command does, and show what it has to say, however it ends.

    :param work: is given what it prints with, and returns the exit status.
    :param quiet: show no progress.
    :param failed: the exit status where it could not be done.
    """
    bar = Bar(wanted=not quiet)
    printer = Printer(bar)
    try:
        return work(bar, printer)
    except (CannotRun, StorageError) as error:
        bar.close()
        printer.flush()
        for line in error.lines if isinstance(error, CannotRun) else [str(error)]:
            say(line)
        return failed
    finally:
        bar.close()
        printer.flush()


@contextmanager
def opened(config: Config, *, writable: bool) -> Iterator[FilesystemDriver]:
    """
    The storage, for as long as a ``with`` block.

    :param writable: whether anything is to be changed there.
    :raises CannotRun: when it cannot be used.
    """
    if isinstance(config.storage.driver, InMemoryStorage):
        raise CannotRun("storage.inmemory is in the memory of the daemon alone, so there is nothing here for a command to work on")
    if isinstance(config.storage.driver, NoStorage):
        raise CannotRun("storage: this configuration has none, it is that of a proxy; so there is nothing here for a command to work on")
    root = config.storage.driver.rootdirectory
    if not os.path.isdir(root):
        # A daemon makes it. Here it is the wrong file, or a disk that is not mounted.
        raise CannotRun(f"storage.filesystem.rootdirectory {root} is not there: is this the right configuration, is the disk mounted?")
    _become_owner(root)
    driver = filesystem(root, writable=writable)
    try:
        driver.start()
    except StorageError as error:
        raise CannotRun(str(error)) from None
    try:
        yield driver
    finally:
        driver.stop()


def _become_owner(root: str) -> None:
    """
    As root, go on as the user that the daemon runs as: what root would write here, the daemon could neither change nor remove. It is the
    one that the daemon's own directory belongs to, or the whole tree, where no daemon has been started yet.
    """
    if os.geteuid() != 0:
        return
    for path in (f"{root}/{layout.own()}", root):
        with suppress(OSError):
            found = os.stat(path)
            break
    else:
        return
    if found.st_uid == 0:
        return
    try:
        name = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        name = ""
    # A root that may not become somebody else, as in some containers, stays what it is.
    with suppress(PermissionError):
        if name:
            os.initgroups(name, found.st_gid)
        else:
            os.setgroups([])
        os.setresgid(found.st_gid, found.st_gid, found.st_gid)
        os.setresuid(found.st_uid, found.st_uid, found.st_uid)


def holder(driver: FilesystemDriver, path: Path) -> str:
    """Who holds a lock, as far as the kernel tells: ``process 1234 (regd)``; else ``another process``."""
    with suppress(OSError, ValueError, IndexError):
        wanted = str(os.stat(f"{driver.root}/{path}").st_ino)
        with open(_LOCKS, encoding="ascii") as locks:
            for line in locks:
                # 1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == wanted and int(fields[4]) > 0:
                    with open(f"/proc/{fields[4]}/comm", encoding="utf-8", errors="replace") as comm:
                        return f"process {fields[4]} ({comm.read().strip()})"
    return "another process"
