"""What ``twistd regd`` takes, and the service that comes out."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from twisted.logger import Logger
from twisted.python.logfile import LogFile
from twisted.python.usage import Options as UsageOptions

from regd import __version__
from regd.config import ConfigError, Loaded, default_path, load
from regd.service.daemon import RegistryService, Streams
from regd.service.systemd import Manager, first_environment
from regd.telemetry.lines import Lines, make_lock
from regd.workers.cores import MOST_BY_DEFAULT, usable_cores

__all__ = ["Options", "makeService"]

_log = Logger()


class Options(UsageOptions):
    """What ``twistd regd`` takes."""

    synopsis = "[--config FILE]"
    longdesc = "A container registry daemon: what registry:2 and the nginx in front of it do."
    optParameters = [  # noqa: N815 - Twisted's name
        ["config", "c", None, "The configuration, in registry:2's format. [default: $REGISTRY_CONFIGURATION_PATH or /etc/regd/config.yml]"],
    ]
    loaded: Loaded

    def opt_version(self) -> NoReturn:
        """Print regd's version and end."""
        print(f"regd {__version__}")  # noqa: T201 - the answer to a person's question
        raise SystemExit(0)

    def postOptions(self) -> None:  # noqa: N802 - Twisted's name
        """Read the configuration, so that a mistake in it is told before anything else happens."""
        path = default_path(self["config"], os.environ)
        try:
            self.loaded = load(path, os.environ)
        except ConfigError as error:
            sys.stderr.write(f"regd: {error}\n")
            raise SystemExit(1) from None


def makeService(options: Options) -> RegistryService:  # noqa: N802 - the name that Twisted's ServiceMaker looks for
    """What ``twistd regd`` runs."""
    # Not at the top: it installs the default reactor, and twistd may have been asked for another.
    from twisted.internet import reactor  # noqa: PLC0415 - see above

    workers = options.loaded.config.http.workers
    count = min(usable_cores(), MOST_BY_DEFAULT) if workers is None else workers
    manager = Manager.from_environment(os.environ, first_environment())
    return RegistryService(options.loaded, _streams(options, several=count > 1), count, reactor, manager)


def _streams(options: Options, *, several: bool) -> Streams:
    """
    Where the log and the access log go: as registry:2, to standard error and standard output; to ``twistd``'s log file where it has one.

    :param several: whether workers have lines for them, too. These write them themselves, but where ``twistd`` has its log file or that of
        the system, which only the parent can write to.
    """
    # Any: the options of twistd, or nothing where the service is made without it.
    twistd: Any = options.parent or {}
    if twistd.get("syslog") or twistd.get("logger"):
        return Streams(None, sys.stdout, {1: sys.stdout.fileno(), 2: _pass_on} if several else {})
    name = twistd.get("logfile")
    if name == "-" or (not name and twistd.get("nodaemon", True)):
        if not several:
            return Streams(sys.stderr, sys.stdout)
        lock, out, err = make_lock(), sys.stdout.fileno(), sys.stderr.fileno()
        return Streams(Lines(err, lock), Lines(out, lock), {1: out, 2: err}, lock)
    stream: Any = LogFile.fromFullPath(name or "twistd.log")

    def write(line: str) -> None:
        stream.write(line)
        stream.flush()

    return Streams(stream, stream, {1: write, 2: write} if several else {}, reopen=stream.reopen)


def _pass_on(line: str) -> None:
    """A line of a worker's, for ``twistd``'s own log."""
    _log.info("{line}", line=line.removesuffix("\n"))
