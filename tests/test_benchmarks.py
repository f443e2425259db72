"""The benchmarks: that they run against both servers, and that their table says what was measured."""

import io
import json
import os
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.__main__ import main
from benchmarks.payload import Payload
from benchmarks.report import Comparison, Turn, table
from benchmarks.rows import ROWS
from tests.e2e.process import need
from tests.e2e.rawhttp import digest_of


def turn(rate: float, peak: int = 0) -> Turn:
    """
    :param rate: of the work, a second.
    :param peak: of the memory, in bytes.
    :return: one measurement.
    """
    return Turn(rate, 0.002, 1.0, peak, None)


class ReportTest(SynchronousTestCase):
    def test_ratios_are_within_pairs(self) -> None:
        pairs = [(turn(100), turn(50)), (turn(30), turn(10)), (turn(10), turn(10))]
        self.assertEqual(Comparison("row", "", "requests", "disk", pairs).ratios(), [1, 2, 3])

    def test_the_table(self) -> None:
        rows = [
            Comparison("small", "", "requests", "tmpfs", [(turn(300, 9 << 20), turn(100, 5 << 20))]),
            Comparison("large", "", "B", "disk", [(turn(2e8), turn(1e8)), (turn(3e8), turn(1e8))]),
        ]
        _, _, small, large = (line.split() for line in table(rows).splitlines())
        self.assertEqual(small[:7], ["small", "tmpfs", "3.00", "3.00..3.00", "300", "100", "requests/s"])
        self.assertEqual(small[7:], ["2.00", "2.00", "ms/request", "9", "5", "MiB"])
        self.assertEqual(large[:7], ["large", "disk", "2.50", "2.00..3.00", "250", "100", "MB/s"])


class PayloadTest(SynchronousTestCase):
    def test_blobs_differ_and_have_their_digests(self) -> None:
        payload = Payload(100_000)
        self.addCleanup(payload.close)
        blobs = [payload.blob("run", number) for number in range(3)]
        self.assertEqual(len(set(blobs)), 3)
        common = os.pread(payload.fd, payload.size, 0)
        for tail, digest in blobs:
            self.assertEqual((len(common + tail), digest_of(common + tail)), (100_000, digest))


class RunTest(SynchronousTestCase):
    def run_main(self, *arguments: str) -> tuple[int, str, str]:
        """
        :param arguments: the command line.
        :return: the exit status, the output and what went to standard error.
        """
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors):
            try:
                status = main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
        return status, output.getvalue(), errors.getvalue()

    def test_rows_run_alone_and_tell_what_they_found(self) -> None:
        need("docker-registry")
        temporary = tempfile.TemporaryDirectory(prefix="regd-")
        self.addCleanup(temporary.cleanup)
        directory = Path(temporary.name)
        found = directory / "found.json"
        status, output, errors = self.run_main(
            *("--row", "images-small", "--row", "manifest-head", "--medium", "disk", "--disk", str(directory)),
            *("--pairs", "1", "--scale", "0.05", "--json", str(found)),
        )
        self.assertEqual((status, errors), (0, ""), output)
        self.assertEqual([line.split()[0] for line in output.splitlines()[-2:]], ["images-small", "manifest-head"])
        document = json.loads(found.read_text(encoding="utf-8"))
        self.assertEqual([row["row"] for row in document["rows"]], ["images-small", "manifest-head"])
        self.assertEqual(sorted(document["versions"]), ["docker-registry", "regd"])
        self.assertEqual([path.name for path in directory.iterdir()], ["found.json"])

    def test_the_help_names_every_row(self) -> None:
        status, output, _ = self.run_main("--help")
        self.assertEqual(status, 0)
        for row in ROWS.values():
            self.assertIn(f"{row.name:16} {row.title}", output)

    def test_bad_arguments(self) -> None:
        for arguments in (["--row", "nonsense"], ["--pairs", "0"], ["--scale", "-1"], ["--medium", "tape"]):
            self.assertEqual(self.run_main(*arguments)[0], 2, arguments)
