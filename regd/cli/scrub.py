"""``regd scrub``: what it prints, and how it ends."""

from __future__ import annotations

import os
import time
from typing import Final

from regd.cli.opening import CannotRun, holder, opened, read_config, to_an_end
from regd.cli.output import Bar, Printer, one_line, say, stopped_by_signals
from regd.config import Config
from regd.config.sizes import format_size
from regd.maintenance import blocking
from regd.maintenance.gate import Gate
from regd.maintenance.scrub import Finding, Kind, Orders, Progress, Running, Scrub, Stage
from regd.storage import layout
from regd.storage.driver import StorageError

__all__ = ["run"]

WELL: Final = 0
DAMAGED: Final = 1
NOT_DONE: Final = 2


def run(path: str | None, maxrate: int, *, repair: bool, restart: bool, quiet: bool) -> int:
    """
    Scrub.

    :param path: the configuration; ``None`` for where it usually is.
    :param maxrate: bytes a second that are read at most; 0 for no limit.
    :returns: the exit status.
    """

    def work(bar: Bar, printer: Printer) -> int:
        return _run(read_config(path, os.environ), Orders(repair, restart, maxrate, measure=bar.shown), bar, printer, quiet=quiet)

    return to_an_end(work, quiet=quiet, failed=NOT_DONE)


def _run(config: Config, orders: Orders, bar: Bar, printer: Printer, *, quiet: bool) -> int:
    with opened(config, writable=orders.repair) as driver:
        witness = _Witness(bar, printer, quiet=quiet)
        # No change that waits is to be refused because another one is slow.
        gate = Gate(driver, blocking.sleep, config.storage.maintenance.garbagecollect.wait)
        scrub = Scrub(driver, gate, witness, _sparse(config, orders), blocking.sleep, time.time)
        with stopped_by_signals(scrub.stop) as interrupted:
            try:
                progress = blocking.run(scrub.run())
            except Running:
                who = holder(driver, layout.scrubbing())
                raise CannotRun(f"{who} is scrubbing this directory already: wait for it, or stop it with SIGTERM") from None
            except StorageError as error:
                raise CannotRun(str(error), "what was found so far is kept; the next scrub goes on from there") from None
        bar.close()
        if not quiet:
            for line in _summary(progress, gate, witness.seconds, witness.size):
                printer.line(line)
            printer.flush()
        if progress.stage is not Stage.DONE:
            stopped = "interrupted" if interrupted.by else "stopped"
            say(f"{stopped} before the end; the next scrub goes on from there")
            return NOT_DONE
    return DAMAGED if progress.remaining else WELL


def _sparse(config: Config, orders: Orders) -> Orders:
    """With whether an index may name images that are not here, by what pushes have to fulfil."""
    validation = config.validation
    sparse = validation.disabled or validation.manifests.indexes.platforms != "all"
    return Orders(orders.repair, orders.restart, orders.maxrate, sparse=sparse, measure=orders.measure)


class _Witness:
    """
    Prints what is found.

    :ivar size: bytes read when it began.
    """

    def __init__(self, bar: Bar, printer: Printer, *, quiet: bool) -> None:
        self.size = 0
        self._began = time.monotonic()
        self._bar = bar
        self._printer = printer
        self._quiet = quiet
        self._expected = 0

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._began

    def begins(self, progress: Progress) -> None:
        """See :class:`~regd.maintenance.scrub.desk.Witness`."""
        self.size = progress.size
        if progress.position or progress.stage is not Stage.REPOSITORIES:
            if not self._quiet:
                say(f"going on with the scrub that began at {progress.started}; --restart begins anew. Found before:")
            for finding in progress.findings:
                self._print(finding)
            self._printer.flush()

    def expects(self, blobs: int, size: int) -> None:
        """See :class:`~regd.maintenance.scrub.desk.Witness`."""
        self._expected = size

    def finding(self, finding: Finding) -> None:
        """See :class:`~regd.maintenance.scrub.desk.Witness`."""
        self._print(finding)
        # There are few, and whoever waits for them may wait for hours.
        self._printer.flush()

    def _print(self, finding: Finding) -> None:
        if not self._quiet or (finding.kind is Kind.DAMAGE and not finding.mended):
            self._printer.line(one_line(str(finding)))

    def progress(self, progress: Progress) -> None:
        """See :class:`~regd.maintenance.scrub.desk.Witness`."""
        if not self._bar.shown:
            return
        if progress.stage is Stage.BLOBS:
            # What was moved or pushed meanwhile is read as well.
            total = max(self._expected, progress.size)
            self._bar.update("blobs", progress.size, total, unit="B", begun=self.size)
        else:
            self._bar.update(progress.stage.value, progress.repositories, unit="repositories")


def _summary(progress: Progress, gate: Gate, seconds: float, before: int) -> list[str]:
    size = progress.size - before
    rate = format_size(int(size / seconds)) if seconds else "0 B"
    looked_at = [
        _many(progress.repositories, "repository", "repositories"),
        _many(progress.manifests, "manifest"),
        _many(progress.links, "link"),
        f"{_many(progress.blobs, 'blob')} ({format_size(progress.size)})",
    ]
    orphans = f"{_many(progress.orphans, 'blob')} ({format_size(progress.orphan_bytes)})"
    lines = [
        f"looked at: {', '.join(looked_at)}; {format_size(size)} read in {seconds:.1f} s, {rate} a second",
        f"damaged: {progress.damaged}, of which mended: {progress.mended}",
        f"left over: {progress.leftovers}, of which removed: {progress.removed}",
        f"strange, and left alone: {progress.strange}; empty directories: {progress.empty}",
        f"linked by no repository: {orphans}, for a garbage collection to remove",
    ]
    if gate.closings:
        lines.append(f"pushes waited {_many(gate.closings, 'time')}, {gate.longest * 1000:.1f} ms at most")
    return ["", *lines]


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or f'{one}s'}"
