"""Where the lines of the access log go, and in which form, by the configuration that is in effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regd.config import Config, ConfigError
from regd.service.loglines import line_fields
from regd.telemetry.access import AccessLog, form_of
from regd.telemetry.files import LineFile
from regd.telemetry.lines import LineStream
from regd.web.request import StreamingRequest

__all__ = ["Destination", "RequestLog"]


@dataclass(frozen=True, slots=True)
class Destination:
    """
    What a configuration asks for, ready for use.

    :ivar file: the file that lines go to; ``None`` for none, or for standard output.
    :ivar log: ``None`` where there is to be none.
    """

    file: LineFile | None
    log: AccessLog | None


class RequestLog:
    """
    The access log of a process.

    :param stream: where lines go unless ``log.accesslog.path`` names a file.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, config: Config, stream: LineStream, reactor: Any) -> None:
        self._stream = stream
        self._reactor = reactor
        # Until it is started.
        self._now = Destination(None, None if config.log.accesslog.disabled else AccessLog(stream))

    def __call__(self, request: StreamingRequest) -> None:
        """A request has ended."""
        if self._now.log is not None:
            self._now.log(request)

    def prepare(self, config: Config) -> Destination:
        """
        Open what a configuration asks for, for :meth:`use`.

        :raises ConfigError: when a file cannot be opened.
        """
        asked = config.log.accesslog
        if asked.disabled:
            return Destination(None, None)
        file = self._now.file
        if asked.path and (file is None or file.path != asked.path):
            file = LineFile(asked.path, self._reactor)
            try:
                file.open()
            except OSError as error:
                raise ConfigError(
                    f"log.accesslog.path: {asked.path}: {error.strerror}; its directory has to be there, and the user that regd runs as "
                    "has to be able to write to it"
                ) from None
        elif not asked.path:
            file = None
        stream = self._stream if file is None else file
        return Destination(file, AccessLog(stream, form_of(asked.formatter, line_fields(config.log))))

    def use(self, destination: Destination) -> None:
        """From the next request on."""
        before, self._now = self._now, destination
        if before.file is not None and before.file is not destination.file:
            before.file.close(wait=False)

    def discard(self, destination: Destination) -> None:
        """What was prepared is not used."""
        if destination.file is not None and destination.file is not self._now.file:
            destination.file.close(wait=False)

    def reopen(self) -> None:
        """The file has been moved away."""
        if self._now.file is not None:
            self._now.file.reopen()

    def close(self) -> None:
        """The process ends: write what is left."""
        if self._now.file is not None:
            self._now.file.close(wait=True)
