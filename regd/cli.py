"""The ``regd`` command: ``serve``, ``check-config``, ``--version``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from regd import __version__
from regd.config import check, default_path

__all__ = ["main"]

_FILE = "the configuration, in registry:2's format (default: $REGISTRY_CONFIGURATION_PATH, else /etc/regd/config.yml)"


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param arguments: without the program's name; those of the process by default.
    :returns: the exit status.
    """
    parsed = _parser().parse_args(arguments)
    status: int = parsed.command(parsed)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regd",
        description="A container registry daemon: what registry:2 and the nginx in front of it do.",
        epilog="As a daemon it runs as 'twistd regd'; see 'twistd --help'.",
    )
    parser.add_argument("-v", "--version", action="version", version=f"regd {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", help="run the registry in the foreground", description="Run the registry in the foreground.")
    serve.add_argument("file", nargs="?", metavar="FILE", help=_FILE)
    serve.set_defaults(command=_serve)
    checking = commands.add_parser(
        "check-config",
        help="say what is wrong with a configuration",
        description="Read a configuration and REGISTRY_* as 'serve' would, and print what is wrong, what is ignored and what results.",
    )
    checking.add_argument("file", nargs="?", metavar="FILE", help=_FILE)
    checking.set_defaults(command=_check_config)
    return parser


def _serve(parsed: argparse.Namespace) -> int:
    # Not at the top: it installs the reactor, which check-config has no use for.
    from twisted.scripts.twistd import run  # noqa: PLC0415 - see above

    sys.argv[1:] = ["--nodaemon", "--pidfile=", "regd", "--config", default_path(parsed.file, os.environ)]
    run()
    return 0


def _check_config(parsed: argparse.Namespace) -> int:
    report = check(default_path(parsed.file, os.environ), os.environ)
    for line in report.lines:
        print(line)
    return 0 if report.ok else 1
