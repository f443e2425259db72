"""What is left of fetches from upstreams: bytes that nobody has asked for since, and that nobody goes on with."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from regd.maintenance.graph import digest_of, raw_name
from regd.maintenance.steps import Steps
from regd.names import ALGORITHMS, Digest
from regd.storage import layout
from regd.storage.driver import Busy, Driver, Missing, Stat

__all__ = ["remove_abandoned"]

#: After so many seconds without a byte a fetch that nobody holds is not gone on with.
_DAY: Final = 86400.0


async def remove_abandoned(driver: Driver, steps: Steps, now: float) -> int:
    """
    Remove the bytes of fetches that were left, and are a day old.

    :param now: seconds since the epoch.
    :returns: how many.
    :raises Stopped: when the run is to stop.
    """
    removed = 0
    for algorithm in ALGORITHMS:
        with suppress(Missing):
            for entry in await driver.scan(layout.fetches(algorithm)):
                await steps.take(1)
                known = raw_name(algorithm, entry)
                if known is not None:
                    removed += await _remove(driver, digest_of(known), now - _DAY)
    return removed


async def _remove(driver: Driver, digest: Digest, before: float) -> bool:
    if not await _is_old(driver, digest, before):
        return False
    held = []
    try:
        # Whoever begins a fetch, or goes on with one, holds this meanwhile, and the end of the file from then on.
        held.append(await driver.lock(layout.fetch_turn(digest)))
        with suppress(Missing):
            held.append(await driver.append(layout.fetching(digest)))
        if not await _is_old(driver, digest, before):
            return False
        await driver.delete(layout.fetch(digest), durable=False)
    except (Busy, Missing):
        return False
    finally:
        for one in held:
            one.close()
    return True


async def _is_old(driver: Driver, digest: Digest, before: float) -> bool:
    looks = await driver.stat_all([layout.fetching(digest), layout.fetch_size(digest)])
    # One that cannot be looked at may be anything.
    return all(look is None or (isinstance(look, Stat) and look.modified < before) for look in looks)
