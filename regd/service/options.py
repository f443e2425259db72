"""What ``twistd regd`` takes, and the service that comes out."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn, TextIO

from twisted.python.logfile import LogFile
from twisted.python.usage import Options as UsageOptions

from regd import __version__
from regd.config import ConfigError, Loaded, default_path, load
from regd.service.daemon import RegistryService

__all__ = ["Options", "makeService"]


class Options(UsageOptions):
    """What ``twistd regd`` takes."""

    synopsis = "[--config FILE]"
    longdesc = "A container registry daemon: what registry:2 and the nginx in front of it do, in one process."
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

    log_stream, access_stream = _streams(options)
    return RegistryService(options.loaded, log_stream, access_stream, reactor)


def _streams(options: Options) -> tuple[TextIO | None, TextIO]:
    """
    Where the log and the access log go: as registry:2, to standard error and standard output; to ``twistd``'s log file where it has one.
    """
    # Any: the options of twistd, or nothing where the service is made without it.
    twistd: Any = options.parent or {}
    if twistd.get("syslog") or twistd.get("logger"):
        return None, sys.stdout
    name = twistd.get("logfile")
    if name == "-" or (not name and twistd.get("nodaemon", True)):
        return sys.stderr, sys.stdout
    stream: Any = LogFile.fromFullPath(name or "twistd.log")
    return stream, stream
