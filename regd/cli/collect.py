"""``regd garbage-collect``: the lines of ``registry:2``'s command of that name, a summary, and how it ends."""

from __future__ import annotations

import os
import signal
import time
from typing import Final

from regd.cli.opening import CannotRun, holder, opened, read_config, to_an_end
from regd.cli.output import Bar, Printer, say, stopped_by_signals
from regd.config import Config
from regd.config.durations import format_duration
from regd.config.sizes import format_size
from regd.maintenance import blocking
from regd.maintenance.collector import Collector
from regd.maintenance.gate import Gate
from regd.maintenance.summary import Orders, Running, Summary
from regd.moments import rfc3339
from regd.names import Digest
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Missing, StorageError
from regd.storage.filesystem import FilesystemDriver

__all__ = ["run"]

DONE: Final = 0
NOT_DONE: Final = 1


def run(path: str | None, grace: float | None, *, dryrun: bool, untagged: bool, quiet: bool) -> int:
    """
    Collect.

    :param path: the configuration; ``None`` for where it usually is.
    :param grace: seconds; ``None`` for what the configuration says.
    :returns: the exit status.
    """

    def work(bar: Bar, printer: Printer) -> int:
        config = read_config(path, os.environ)
        return _run(config, _orders(config, grace, dryrun=dryrun, untagged=untagged), bar, printer, quiet=quiet)

    return to_an_end(work, quiet=quiet, failed=NOT_DONE)


def _orders(config: Config, grace: float | None, *, dryrun: bool, untagged: bool) -> Orders:
    maintenance = config.storage.maintenance
    if grace is None:
        # Nobody pushes: the way that registry:2's documentation tells to collect.
        grace = 0.0 if maintenance.readonly.enabled else maintenance.garbagecollect.grace
    return Orders(
        grace=grace,
        untagged=untagged or maintenance.garbagecollect.untagged,
        dryrun=dryrun,
        maxrate=maintenance.garbagecollect.maxrate,
        prefixes=config.proxy.prefixes,
        maxsize=config.proxy.limits.maxsize,
        maxage=config.proxy.limits.maxage,
    )


def _run(config: Config, orders: Orders, bar: Bar, printer: Printer, *, quiet: bool) -> int:
    with opened(config, writable=not orders.dryrun) as driver:
        witness = _Witness(bar, printer)
        # No change that waits is to be refused because another one is slow.
        gate = Gate(driver, blocking.sleep, config.storage.maintenance.garbagecollect.wait)
        damage = _Damage(bar, printer)
        collector = Collector(driver, gate, damage, orders, None if quiet else witness, blocking.sleep, time.time)
        with stopped_by_signals(collector.stop) as interrupted:
            try:
                summary = blocking.run(collector.run())
            except Running:
                raise CannotRun(blocking.run(_running(driver))) from None
            except StorageError as error:
                raise CannotRun(str(error), "the next run finishes what this one has begun") from None
        bar.close()
        if not quiet:
            witness.end(summary)
            printer.flush()
            for line in _summary(summary, orders):
                say(line)
        if summary.error:
            raise CannotRun(summary.error, "the next run finishes what this one has begun")
        if not summary.finished:
            what = "interrupted" if interrupted.by else "stopped"
            say(f"{what} before the end; the next run finishes what this one has begun")
            return 128 + (interrupted.by or signal.SIGTERM)
    return DONE


async def _running(driver: FilesystemDriver) -> str:
    """What to tell of another collection."""
    try:
        began = (await driver.stat(layout.collecting())).modified
    except (Missing, StorageError):
        since = ""
    else:
        since = f" since {rfc3339(began)}"
    who = holder(driver, layout.collector())
    return f"{who} is collecting the garbage of this directory already{since}: wait for it, or stop it with SIGTERM"


class _Damage(Damage):
    """Tells of bad files on standard error. A collection reports each once."""

    def __init__(self, bar: Bar, printer: Printer) -> None:
        super().__init__()
        self._bar = bar
        self._printer = printer

    def report(self, path: str, what: str) -> None:
        """See :class:`~regd.storage.damage.Damage`."""
        self.count += 1
        self._printer.flush()
        self._bar.clear()
        say(f"{path}: {what}")


class _Witness:
    """
    Prints what ``registry:2`` 2.8 prints, to the letter, with the space behind the digest of a manifest.

    It says how many blobs can go before it says which, so those are kept until all are known: as bytes, since there may be millions.
    """

    def __init__(self, bar: Bar, printer: Printer) -> None:
        self._bar = bar
        self._printer = printer
        self._blobs = bytearray()
        self._count = 0
        self._manifests = 0

    def repository(self, name: str) -> None:
        """See :class:`~regd.maintenance.summary.Witness`."""
        self._printer.line(name)

    def manifest(self, name: str, digest: Digest) -> None:
        """See :class:`~regd.maintenance.summary.Witness`."""
        self._printer.line(f"{name}: marking manifest {digest} ")

    def blob(self, name: str, digest: Digest) -> None:
        """See :class:`~regd.maintenance.summary.Witness`."""
        self._printer.line(f"{name}: marking blob {digest}")

    def eligible_manifest(self, name: str, digest: Digest) -> None:
        """See :class:`~regd.maintenance.summary.Witness`."""
        self._manifests += 1
        self._printer.line(f"manifest eligible for deletion: {digest}")

    def eligible_blob(self, digest: Digest, size: int) -> None:
        """See :class:`~regd.maintenance.summary.Witness`."""
        self._count += 1
        self._blobs += f"{digest}\n".encode("ascii")

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """See :class:`~regd.maintenance.summary.Witness`."""
        if self._bar.shown:
            self._bar.update(stage, done, total, unit=_UNITS.get(stage, "files"))

    def end(self, summary: Summary) -> None:
        """Print what can only be known at the end."""
        self._printer.line(
            f"\n{summary.blobs} blobs marked, {self._count} blobs and {self._manifests} manifests eligible for deletion"
        )
        for digest in self._blobs.splitlines():
            self._printer.line(f"blob eligible for deletion: {digest.decode('ascii')}")


_UNITS: Final = {"mark": "repositories", "sweep": "directories"}


def _summary(summary: Summary, orders: Orders) -> list[str]:
    lines = []
    if summary.dryrun:
        lines.append(f"nothing was removed, as this was a dry run: {summary.seconds:.1f} s")
    else:
        lines.append(
            f"{summary.blobs_swept} blobs ({format_size(summary.bytes_freed)}) and {summary.manifests_removed} manifests removed, with "
            f"{summary.links_removed} links, {summary.repositories_removed} repositories and {summary.uploads_removed} uploads that were "
            f"empty, in {summary.seconds:.1f} s; pushes waited {summary.longest_closed_milliseconds:.1f} ms at most, "
            f"{summary.milliseconds_closed:.1f} ms in all"
        )
    if orders.evicting:
        went = "would go from" if summary.dryrun else "were evicted from"
        lines.append(
            f"{summary.blobs_evicted} blobs ({format_size(summary.bytes_evicted)}) and {summary.manifests_evicted} manifests {went} the "
            f"cache, in which {format_size(summary.bytes_cached)} remain"
        )
    if orders.grace:
        # Some of it is linked, and marked because of that, so only the rest can be counted.
        counted = f", {summary.young} blobs ({format_size(summary.young_bytes)}) without a link among it" if summary.young else ""
        lines.append(
            f"what was pushed or asked for in the last {format_duration(round(orders.grace * 1_000_000_000))} was kept{counted}: "
            "a later run removes it, or one with --grace 0s, if nobody is pushing"
        )
    if summary.skipped:
        lines.append(f"{summary.skipped} bad files were passed over, and what they may refer to was kept: see above, and try 'regd scrub'")
    return lines
