"""Which parts of a configuration can change while the daemon runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from regd.config import Config, FilesystemStorage, TCPAddress

__all__ = ["keep"]


def _root(config: Config) -> object:
    driver = config.storage.driver
    return driver.rootdirectory if isinstance(driver, FilesystemStorage) else None


def _threads(config: Config) -> object:
    driver = config.storage.driver
    return driver.maxthreads if isinstance(driver, FilesystemStorage) else None


def _redirect(config: Config) -> TCPAddress | None:
    return None if config.http.tls is None else config.http.tls.redirect


#: What is decided when the daemon starts, by the key that says it.
_FIXED: Final[tuple[tuple[str, Callable[[Config], object]], ...]] = (
    ("http.addr", lambda config: config.http.addr),
    ("http.tls.redirect", _redirect),
    ("http.debug.addr", lambda config: config.http.debug.addr),
    ("http.workers", lambda config: config.http.workers),
    ("storage", lambda config: type(config.storage.driver)),
    ("storage.filesystem.rootdirectory", _root),
    ("storage.filesystem.maxthreads", _threads),
    ("tracing", lambda config: config.tracing),
)


def keep(running: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """
    What can be had now of a configuration that is wanted.

    :returns: the configuration, and the keys of which the running one's value stays until a restart.
    """
    debug = replace(wanted.http.debug, addr=running.http.debug.addr)
    tls = None if wanted.http.tls is None else replace(wanted.http.tls, redirect=_redirect(running))
    http = replace(wanted.http, addr=running.http.addr, debug=debug, workers=running.http.workers, tls=tls)
    storage = replace(wanted.storage, driver=running.storage.driver)
    stays = tuple(key for key, value in _FIXED if value(running) != value(wanted))
    if "storage" in stays:
        # That the other driver has other keys needs no saying.
        stays = tuple(key for key in stays if not key.startswith("storage."))
    return replace(wanted, http=http, storage=storage, tracing=running.tracing), stays
