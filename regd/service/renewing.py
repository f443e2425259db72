"""Certificates that are asked for when there are none, and again before they expire."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from regd.config import Config, ConfigError, LetsEncrypt
from regd.storage.threads import PoolThreads
from regd.tls.pem import Named, certificates, not_after

__all__ = ["Renewing"]

#: How long before its end a certificate is renewed, in seconds.
_BEFORE: Final = 30 * 86400.0

#: How often is looked, and how soon again after a failure, in seconds. Let's Encrypt lets a name fail five times an hour.
_EVERY: Final = 6 * 3600.0
_AGAIN: Final = 3600.0

#: When is looked for the first time: the listener at port 80 has to be there.
_FIRST: Final = 1.0


class Renewing:
    """
    Asks for certificates; for the one process that does so.

    :param obtained: called when there is a new one.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :ivar published: what an ACME server is going to find, by the path of the URL.
    """

    _log = Logger()

    def __init__(self, obtained: Callable[[], None], reactor: Any) -> None:
        self._obtained = obtained
        self._reactor = reactor
        self._threads: PoolThreads | None = None
        self._next: IDelayedCall | None = None
        self._settings: LetsEncrypt | None = None
        self._running = False
        self.published: dict[str, str] = {}

    def prepare(self, config: Config) -> None:
        """
        Have something to serve.

        :raises ConfigError: when that cannot be, because the library is not installed, or the directory not to be written to.
        """
        settings = None if config.http.tls is None else config.http.tls.letsencrypt
        if settings is not None:
            try:
                from regd.tls.acme import place  # noqa: PLC0415 - only where it is wanted: it may not be installed
            except ImportError:
                how = "pip install 'regd[letsencrypt]'; or have certbot or lego ask, and name what they write in http.tls.certificate"
                raise ConfigError(f"http.tls.letsencrypt: the library that asks for certificates is not installed: {how}") from None
            try:
                place(settings)
            except OSError as error:
                raise ConfigError(f"http.tls.letsencrypt.cachefile: {settings.cachefile}: {error.strerror}") from None
        self._settings = settings

    def begin(self) -> None:
        """Look for what has to be asked for, now and from now on."""
        if self._settings is not None and self._next is None and not self._running:
            self._next = self._reactor.callLater(_FIRST, self._look)

    def stop(self) -> None:
        """Ask for nothing any more. What is being asked for is not waited for."""
        self._settings = None
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._threads is not None:
            self._threads.stop()
            self._threads = None

    def _look(self) -> None:
        self._next = None
        settings = self._settings
        wanted = [] if settings is None else [host for host in settings.hosts if _is_due(Path(settings.cachefile, host), time.time())]
        if settings is None or not wanted:
            self._wait(_EVERY)
            return
        if self._threads is None:
            self._threads = PoolThreads(self._reactor, 1)
        self._running = True
        Deferred.fromCoroutine(self._renew(self._threads, settings, wanted)).addErrback(self._failed)

    async def _renew(self, threads: PoolThreads, settings: LetsEncrypt, wanted: list[str]) -> None:
        from regd.tls.acme import CannotObtain, obtain  # noqa: PLC0415 - as above

        failed = False
        for host in wanted:
            self._log.info("asking for a certificate for {host}", host=host)
            try:
                await threads.run(obtain, settings, host, self._publish)
            except (CannotObtain, OSError) as error:
                failed = True
                self._log.error("no certificate: {error}; it is tried again in {minutes:g} minutes", error=error, minutes=_AGAIN / 60)
            else:
                self._log.info("there is a certificate for {host}", host=host)
        self.published.clear()
        self._running = False
        if len(wanted) > failed:
            self._obtained()
        self._wait(_AGAIN if failed else _EVERY)

    def _failed(self, failure: Any) -> None:
        self._running = False
        self._log.failure("certificates could not be asked for", failure=failure)
        self._wait(_AGAIN)

    def _publish(self, path: str, content: str) -> None:
        """From a thread; to put something into a dictionary is one step."""
        self.published[path] = content

    def _wait(self, seconds: float) -> None:
        if self._settings is not None and self._next is None:
            # Not all registries of the world at the same time of day.
            self._next = self._reactor.callLater(seconds * random.uniform(1.0, 1.1), self._look)  # noqa: S311 - it is no secret


def _is_due(path: Path, now: float) -> bool:
    from regd.tls.acme import is_placeholder  # noqa: PLC0415 - as above

    try:
        first = certificates(Named("http.tls.letsencrypt", str(path), path.read_bytes()))[0]
    except (OSError, ConfigError):
        return True
    return is_placeholder(first) or not_after(first) - now < _BEFORE
