"""The ``regd`` command: ``serve``, ``check-config``, ``garbage-collect``, ``scrub``, ``htpasswd``, ``--version``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from regd import __version__

__all__ = ["main"]

_FILE = "the configuration, in registry:2's format (default: $REGISTRY_CONFIGURATION_PATH, else /etc/regd/config.yml)"

_COLLECT = """\
Remove blobs that no manifest refers to. It is safe beside a running regd: pulls and pushes go on, and what was pushed or asked for within
the grace period is kept. What it prints is what registry:2 prints; a summary follows on standard error."""

_COLLECT_MORE = """\
exit status: 0 when it was done; 1 when it was not, with the reason; 130 after Ctrl-C, 143 after SIGTERM, which it takes between two
steps: the next run finishes what this one has begun."""

_SCRUB = """\
Read every blob and compare it with its digest; look whether every link and every manifest is what it should be and has what it refers
to; look for what was left over. Nothing is changed without --repair. It is safe beside a running regd. A scrub that is stopped goes on
where it was when it is started again."""

_SCRUB_MORE = """\
Each finding is one line: where, relative to the root directory; what is wrong; what can be done about it, or was. exit status: 0 when
all is well, or has been mended; 1 when there is damage that remains; 2 when it could not be done, or was stopped before its end."""


_HTPASSWD = """\
Write a password into a file for auth.htpasswd, as htpasswd -B does. It is asked for twice on a terminal, and read from the first line of
standard input otherwise. A running regd sees the change by itself."""


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
    serve.set_defaults(command=_serve)
    checking = commands.add_parser(
        "check-config",
        help="say what is wrong with a configuration",
        description="Read a configuration and REGISTRY_* as 'serve' would, and print what is wrong, what is ignored and what results.",
    )
    checking.set_defaults(command=_check_config)
    collecting = commands.add_parser(
        "garbage-collect", help="remove what no manifest refers to", description=_COLLECT, epilog=_COLLECT_MORE
    )
    collecting.add_argument("-d", "--dry-run", action="store_true", help="only print what would be removed")
    collecting.add_argument(
        "-m",
        "--delete-untagged",
        action="store_true",
        help="remove manifests, too, that no tag, no index and no living subject holds",
    )
    collecting.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    collecting.add_argument(
        "--grace",
        metavar="DURATION",
        type=_duration,
        help="keep what was pushed or asked for so recently, such as 30m (default: storage.maintenance.garbagecollect.grace of the "
        "configuration; 0s where storage.maintenance.readonly.enabled is true, as nobody pushes then)",
    )
    collecting.set_defaults(command=_collect)
    scrubbing = commands.add_parser("scrub", help="look for damage, and mend it", description=_SCRUB, epilog=_SCRUB_MORE)
    scrubbing.add_argument(
        "--repair",
        action="store_true",
        help="mend links that can be mended, move damaged blobs aside so that a push heals them, and remove what was left over",
    )
    scrubbing.add_argument("--maxrate", metavar="RATE", type=_rate, default=0, help="read so much a second at most, such as 50MiB")
    scrubbing.add_argument("--restart", action="store_true", help="begin anew, also where the last scrub was stopped before its end")
    scrubbing.add_argument("-q", "--quiet", action="store_true", help="print nothing but damage that remains, and errors")
    scrubbing.set_defaults(command=_scrub)
    for command in (serve, checking, collecting, scrubbing):
        command.add_argument("file", nargs="?", metavar="CONFIG", help=_FILE)
    passwords = commands.add_parser("htpasswd", help="write a password into a file", description=_HTPASSWD)
    work = "work of a check, 10 to 16 (%(default)s)"
    passwords.add_argument("--cost", type=int, choices=range(10, 17), default=12, metavar="N", help=work)
    passwords.add_argument("-D", "--delete", action="store_true", help="remove the user")
    passwords.add_argument("path", metavar="FILE", help="what auth.htpasswd.path names; made if it is not there")
    passwords.add_argument("user", metavar="USER", help="whose password it is")
    passwords.set_defaults(command=_htpasswd)
    return parser


def _htpasswd(parsed: argparse.Namespace) -> int:
    from regd.cli import htpasswd  # noqa: PLC0415 - as below

    return htpasswd.run(parsed.path, parsed.user, cost=parsed.cost, delete=parsed.delete)


def _duration(text: str) -> float:
    from regd.config.durations import DurationError, parse_duration  # noqa: PLC0415 - as below

    try:
        nanoseconds = parse_duration(text)
    except DurationError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None
    if nanoseconds < 0:
        raise argparse.ArgumentTypeError("time does not run backwards: 0s or more")
    return nanoseconds / 1_000_000_000


def _rate(text: str) -> int:
    from regd.config.sizes import SizeError, parse_size  # noqa: PLC0415 - as below

    try:
        return parse_size(text.removesuffix("/s"))
    except SizeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None


# Each command imports what it needs when it runs: the others need not wait for that, and --help for none of it.


def _serve(parsed: argparse.Namespace) -> int:
    # It installs the reactor, which no other command has a use for.
    from twisted.scripts.twistd import run  # noqa: PLC0415 - see above

    from regd.config import default_path  # noqa: PLC0415 - see above

    sys.argv[1:] = ["--nodaemon", "--pidfile=", "regd", "--config", default_path(parsed.file, os.environ)]
    run()
    return 0


def _check_config(parsed: argparse.Namespace) -> int:
    from regd.config import Config, check, default_path  # noqa: PLC0415 - see above

    def examine(config: Config) -> list[str]:
        from regd.service.files import unusable_files  # noqa: PLC0415 - needed only where the file itself is right

        return unusable_files(config)

    def advise(config: Config) -> tuple[str, ...]:
        from regd.config.watched import read_files  # noqa: PLC0415 - as above
        from regd.service.advice import advice  # noqa: PLC0415 - as above

        return advice(config, read_files(config), time.time())

    report = check(default_path(parsed.file, os.environ), os.environ, examine, advise)
    for line in report.lines:
        print(line)
    return 0 if report.ok else 1


def _collect(parsed: argparse.Namespace) -> int:
    from regd.cli import collect  # noqa: PLC0415 - see above

    return collect.run(parsed.file, parsed.grace, dryrun=parsed.dry_run, untagged=parsed.delete_untagged, quiet=parsed.quiet)


def _scrub(parsed: argparse.Namespace) -> int:
    from regd.cli import scrub  # noqa: PLC0415 - see above

    return scrub.run(parsed.file, parsed.maxrate, repair=parsed.repair, restart=parsed.restart, quiet=parsed.quiet)
