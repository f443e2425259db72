"""``python -m benchmarks.show FILE.json ...``: the table of runs that were written down, as one; and their plot."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import machine_text, table
from benchmarks.results import Result, json_text, result_of

__all__ = ["Header", "joined", "tell"]

#: What the JSON has besides the rows: the machine, the versions, the file systems and the settings.
Header = Mapping[str, Mapping[str, object]]


def tell(header: Header, results: Sequence[Result], to_json: Path | None, to_plot: Path | None) -> None:
    """
    Print the table, and write the files that were asked for.

    :raises OSError: when one cannot be written.
    """
    print(machine_text(header))
    print(table(results))
    for reason in sorted({f"{peer}: {reason}" for result in results for peer, reason in result.skipped.items()}):
        print(f"skipped {reason}")
    if to_json is not None:
        to_json.write_text(json_text(header, results) + "\n", encoding="utf-8")
    if to_plot is not None:
        try:
            from benchmarks.plot import draw  # noqa: PLC0415 - nothing else needs what it needs
        except ImportError as error:
            print(f"no plot: {error}; what it needs comes with pip install '.[benchmark]'", file=sys.stderr)
        else:
            draw(json_text(header, results), to_plot)


def joined(documents: Sequence[Mapping[str, Any]]) -> tuple[Header, list[Result]]:
    """
    Runs as one: where two have the same row on the same medium, the later counts; all else stays where it was.

    :param documents: as ``--json`` writes them.
    :raises ValueError: when they are of different machines or versions, and so say nothing of each other.
    """
    first = documents[0]
    results: dict[tuple[str, str], Result] = {}
    for document in documents:
        if document["versions"] != first["versions"] or document["machine"]["processor"] != first["machine"]["processor"]:
            raise ValueError("the runs are of different versions or machines")
        for row in document["rows"]:
            results[row["row"], row["medium"]] = result_of(row)
    header = {name: dict(first[name]) for name in ("machine", "versions", "file_systems", "settings")}
    for document in documents[1:]:
        header["file_systems"].update(document["file_systems"])
    return header, list(results.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """
    :param arguments: the command line, or ``None`` for that of the process.
    :return: the exit status: 0, or 1 when a file is not what it should be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.show", description="Print the table of what python -m benchmarks --json has written. Later files win."
    )
    parser.add_argument("source", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write them as one file here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios here, as SVG; needs matplotlib")
    options = parser.parse_args(arguments)
    try:
        header, results = joined([json.loads(source.read_text(encoding="utf-8")) for source in options.source])
        tell(header, results, options.json, options.plot)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{', '.join(map(str, options.source))}: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
