"""The benchmarks: that they run against all servers, and that their table says what was measured. No speed is asserted here."""

import contextlib
import dataclasses
import http.server
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks.__main__ import main
from benchmarks.asking import ask_many, parse_wrk, request_head
from benchmarks.candidates import CANDIDATES, Candidate, Place, version_in
from benchmarks.data import Data, Held, Settings
from benchmarks.floor import measure as measure_floor
from benchmarks.payload import CHUNK, Payload
from benchmarks.processes import end_session, members, usage_of
from benchmarks.report import file_system, table
from benchmarks.results import Goal, Result, Spread, Turn, Unit, document_of, json_text
from benchmarks.rows import ROWS
from benchmarks.run import Medium, Run
from benchmarks.show import joined
from benchmarks.show import main as show
from benchmarks.wire import Connection, UnexpectedReply
from tests.e2e.process import need, wait_until
from tests.e2e.rawhttp import digest_of

REQUESTS = Unit("requests/s", 1.0, "ms/request", 1e3)
BYTES = Unit("MB/s", 1e-6, "s/GB", 1e9)
LATENCY = Unit("ms", 1e3, "ms/request", 1e3, digits=1, lower=True)


def turn(value: float, peak: int = 0) -> Turn:
    """
    :param value: what the row is about.
    :param peak: of the memory of one process, in bytes.
    :return: one measurement.
    """
    return Turn(value, amount=500, seconds=2, cpu_seconds=1, client_cpu_seconds=0.5, peak=peak, peak_total=2 * peak, processes=2)


def result(unit: Unit, *rounds: tuple[float, float], goals: tuple[Goal, ...] = (), peak: int = 0) -> Result:
    """
    :param unit: of the row.
    :param rounds: the values of regd and of its peer.
    :param goals: those of the row.
    :param peak: of regd.
    :return: a row on a medium.
    """
    turns = [{"regd": turn(ours, peak), "docker-registry": turn(theirs)} for ours, theirs in rounds]
    return Result("row", "a title", "disk", unit, goals, turns)


class ResultTest(SynchronousTestCase):
    def test_ratios_are_within_rounds(self) -> None:
        self.assertEqual(result(REQUESTS, (100, 50), (30, 10), (10, 10)).ratios("docker-registry"), Spread(2, 1, 3))

    def test_a_ratio_above_1_is_better_also_where_less_is(self) -> None:
        self.assertEqual(result(LATENCY, (0.01, 0.05), (0.02, 0.02), (0.02, 0.04)).ratios("docker-registry"), Spread(2, 1, 5))

    def test_the_median_meets_a_goal_or_does_not(self) -> None:
        measured = result(REQUESTS, (100, 50), (30, 10), (10, 10))
        for goal, met in ((Goal(2, "docker-registry"), True), (Goal(2.01, "docker-registry"), False), (Goal(30), True), (Goal(29), False)):
            self.assertEqual(measured.met(goal), met, goal)

    def test_cpu_is_for_a_unit_of_the_work(self) -> None:
        measured = result(REQUESTS, (100, 50))
        self.assertEqual((measured.cpu("regd"), measured.client_cpu("regd")), (0.002, 0.001))

    def test_json_has_every_turn_and_what_follows_from_them(self) -> None:
        document = json.loads(json_text({"machine": {}}, [result(LATENCY, (0.01, 0.05), goals=(Goal(0.02), Goal(6, "docker-registry")))]))
        (row,) = document["rows"]
        self.assertEqual((row["goal"], row["met"]), (0.02, True))
        self.assertEqual([(part["goal"], part["met"], part["ratio"]["median"]) for part in row["comparisons"]], [(6, False, 5)])
        self.assertEqual(row["rounds"][0]["regd"]["value"], 0.01)
        self.assertEqual(row["candidates"]["docker-registry"]["cpu_seconds_per_unit"], 0.002)

    def test_json_of_a_row_that_was_not_measured(self) -> None:
        self.assertEqual(document_of(Result("row", "", "disk", REQUESTS, (Goal(1),), [], {"nginx": "why"}))["met"], None)


class JoinedTest(SynchronousTestCase):
    def document(self, *rows: Result, processor: str = "a processor") -> dict[str, Any]:
        """
        :param rows: what was measured.
        :param processor: of the machine.
        :return: a run as JSON has it.
        """
        header = {"machine": {"processor": processor}, "versions": {}, "file_systems": {"disk": "ext4"}, "settings": {}}
        found: dict[str, Any] = json.loads(json_text(header, rows))
        return found

    def test_a_row_comes_back_as_it_was(self) -> None:
        row = result(LATENCY, (0.01, 0.05), goals=(Goal(0.02), Goal(6, "docker-registry")))
        _, (again,) = joined([self.document(row)])
        self.assertEqual(table([again]), table([row]))
        self.assertEqual(document_of(again), document_of(row))

    def test_the_later_run_of_a_row_counts(self) -> None:
        other = dataclasses.replace(result(REQUESTS, (1, 1)), row="other")
        _, rows = joined([self.document(result(REQUESTS, (1, 1)), other), self.document(result(REQUESTS, (2, 1)))])
        self.assertEqual([(row.row, row.ratios("docker-registry").median) for row in rows], [("row", 2), ("other", 1)])

    def test_runs_of_different_machines_say_nothing_of_each_other(self) -> None:
        with self.assertRaises(ValueError):
            joined([self.document(), self.document(processor="another")])

    def test_the_command(self) -> None:
        with tempfile.TemporaryDirectory(prefix="regd-") as directory:
            first, second = Path(directory, "first.json"), Path(directory, "second.json")
            document = self.document(result(REQUESTS, (100, 10)))
            document["machine"] |= {"cores": 2, "memory_mib": 3, "load_average": 0}
            first.write_text(json.dumps(document), encoding="utf-8")
            output = io.StringIO()
            with redirect_stdout(output):
                self.assertEqual(show([str(first), "--json", str(second)]), 0)
            self.assertIn("docker-registry", output.getvalue())
            self.assertEqual(json.loads(second.read_text(encoding="utf-8")), document)
            first.write_text("[{}]", encoding="utf-8")
            with redirect_stderr(io.StringIO()) as errors:
                self.assertEqual(show([str(first)]), 1)
            self.assertIn("first.json", errors.getvalue())


class TableTest(SynchronousTestCase):
    def lines(self, *results: Result) -> list[list[str]]:
        """
        :param results: what was measured.
        :return: the words of each line of the table but the headings.
        """
        return [line.split() for line in table(results).splitlines()[2:]]

    def test_a_peer_with_a_goal(self) -> None:
        (line,) = self.lines(result(BYTES, (2e8, 1e8), (3e8, 1e8), goals=(Goal(3, "docker-registry"),), peak=9 << 20))
        self.assertEqual(line[:8], ["row", "disk", "docker-registry", "2.50", "2.00..3.00", "3x", "MISSED", "250"])
        self.assertEqual(line[8:], ["100", "MB/s", "2000000.000", "2000000.000", "s/GB", "1000000.000", "9", "0", "18", "0", "MiB"])

    def test_a_limit_has_a_line_of_its_own(self) -> None:
        alone, beside = self.lines(result(LATENCY, (0.0101, 0.0202), goals=(Goal(0.02),)))
        self.assertEqual(alone[:8], ["row", "disk", "-", "<20", "ms", "met", "10.1", "ms"])
        self.assertEqual(beside[:6], ["row", "disk", "docker-registry", "2.00", "2.00..2.00", "10.1"])

    def test_a_row_that_was_not_measured_has_no_line(self) -> None:
        self.assertEqual(self.lines(Result("row", "", "disk", REQUESTS, (), [])), [])

    def test_the_file_system_of_a_directory(self) -> None:
        self.assertEqual(file_system(Path("/proc")), "proc")


# What wrk 4.1.0 prints with --latency.
WRK = """\
Running 1s test @ http://127.0.0.1:5000/v2/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    90.41us  331.82us   7.08ms   99.01%
    Req/Sec    93.58k    27.84k  121.99k    63.64%
  Latency Distribution
     50%   71.00us
     75%    1.20ms
     90%    1.50ms
     99%    2.25ms
  102079 requests in 1.10s, 18.30MB read
Requests/sec:  92795.72
Transfer/sec:     16.64MB
"""


class WrkTest(SynchronousTestCase):
    def test_what_it_prints(self) -> None:
        work = parse_wrk(WRK, 0.5)
        self.assertEqual((work.amount, work.seconds, work.client_cpu), (102079, 1.1, 0.5))
        assert work.p50 is not None and work.p99 is not None
        self.assertAlmostEqual(work.p50, 71e-6)
        self.assertAlmostEqual(work.p99, 2.25e-3)

    def test_failures_are_failures(self) -> None:
        for line in ("  Non-2xx or 3xx responses: 17", "  Socket errors: connect 0, read 3, write 0, timeout 0"):
            with self.assertRaises(UnexpectedReply) as caught:
                parse_wrk(WRK.replace("Requests/sec", f"{line}\nRequests/sec"), 0)
            self.assertIn(line.strip(), str(caught.exception))

    def test_no_answers_are_a_failure(self) -> None:
        for output in ("", WRK.replace("102079 requests", "0 requests")):
            with self.assertRaises(UnexpectedReply):
                parse_wrk(output, 0)

    @given(st.text())
    def test_anything_else_is_refused(self, text: str) -> None:
        with contextlib.suppress(UnexpectedReply):
            self.assertGreater(parse_wrk(text, 0).amount, 0)

    @given(st.integers(1, 10**12), st.sampled_from([("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)]), st.integers(1, 99999))
    def test_every_unit_of_time(self, requests: int, unit: tuple[str, float], hundredths: int) -> None:
        work = parse_wrk(f"  {requests} requests in {hundredths / 100:.2f}{unit[0]}, 1.00GB read\n", 0)
        self.assertEqual(work.amount, requests)
        self.assertAlmostEqual(work.seconds, hundredths / 100 * unit[1])


class VersionTest(SynchronousTestCase):
    def test_what_programs_say_of_themselves(self) -> None:
        for text, version in (
            ("docker-registry github.com/docker/distribution 2.8.2+ds1\n", "2.8.2+ds1"),
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer\nUsage: wrk <options> <url>", "4.1.0-3+b2"),
            ("", "unknown"),
        ):
            self.assertEqual(version_in(text), version)

    @given(st.text())
    def test_any_text_has_one_word_of_version(self, text: str) -> None:
        self.assertEqual(len(version_in(text).split()), 1)


class PayloadTest(SynchronousTestCase):
    def test_blobs_differ_and_have_their_digests(self) -> None:
        payload = Payload(100_000)
        self.addCleanup(payload.close)
        blobs = [payload.blob("run", number) for number in range(3)]
        self.assertEqual(len(set(blobs)), 3)
        common = os.pread(payload.fd, payload.size, 0)
        for tail, digest in blobs:
            self.assertEqual((len(common + tail), digest_of(common + tail)), (100_000, digest))

    def test_the_chunked_form_is_the_same_in_chunks(self) -> None:
        for size in (50, CHUNK + 32, 3 * 1024 * 1024 + 5):
            payload = Payload(size)
            self.addCleanup(payload.close)
            coded = os.pread(payload.chunked_fd, payload.chunked_size + 1, 0)
            self.assertEqual(len(coded), payload.chunked_size)
            chunks = []
            while coded:
                head, _, coded = coded.partition(b"\r\n")
                chunks.append(coded[: int(head, 16)])
                self.assertEqual(coded[len(chunks[-1]) :][:2], b"\r\n")
                coded = coded[len(chunks[-1]) + 2 :]
            self.assertLessEqual(max(map(len, chunks)), CHUNK)
            self.assertEqual(b"".join(chunks), os.pread(payload.fd, payload.size, 0))


class Answering(http.server.BaseHTTPRequestHandler):
    """A server that answers what its path says: a status and a length. What it is asked for is counted in its server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer in pieces."""
        status, length = map(int, self.path.split("/")[1:])
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "GET":
            for offset in range(0, length, 700_000):
                self.wfile.write(b"x" * min(700_000, length - offset))

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class AskingTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.port = self.server.server_address[1]
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)

    def ask(self, method: str, path: str, status: int = 200) -> float:
        """
        :param method: of the requests.
        :param path: of their targets.
        :param status: that they expect.
        :return: how many were answered.
        """
        work = ask_many(self.port, [request_head(self.port, method, path, ["Accept: */*"])], 0.3, connections=3, status=status)
        assert work.p50 is not None and work.p99 is not None
        self.assertTrue(0 < work.p50 <= work.p99)
        return work.amount

    def test_answers_of_all_kinds(self) -> None:
        for method, path in (("HEAD", "/200/1000"), ("GET", "/200/0"), ("GET", "/200/1000"), ("GET", "/200/2000000")):
            self.assertGreater(self.ask(method, path), 3)
        self.assertGreater(self.ask("GET", "/206/100000", 206), 3)

    def test_another_answer_is_a_failure(self) -> None:
        with self.assertRaises(UnexpectedReply) as caught:
            self.ask("GET", "/404/3")
        self.assertIn("404", str(caught.exception))


# Starts a child that spins for a while, and prints that it does.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.2: pass"])
child.wait()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("ready", flush=True)
time.sleep(60)
"""


class ConnectionTest(SynchronousTestCase):
    """Answers as servers send them; one more follows each, so that nothing may be left over or taken too much."""

    def replies(self, *answers: bytes) -> list[bytes]:
        """
        :param answers: what a server sends, at once.
        :return: the bodies that the client finds in it.
        """
        with socket.create_server(("127.0.0.1", 0)) as listening, Connection(listening.getsockname()[1]) as connection:
            client = connection.socket
            with listening.accept()[0] as server:
                server.sendall(b"".join(answers))
                server.shutdown(socket.SHUT_WR)
                self.assertGreater(client.fileno(), 0)
                return [connection.reply("GET").body for _ in answers]

    @given(st.lists(st.binary(min_size=1, max_size=50), max_size=5))
    def test_chunks(self, chunks: list[bytes]) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        answer = head + coded + b"0\r\n\r\n"
        self.assertEqual(self.replies(answer, answer), [b"".join(chunks)] * 2)

    @given(st.binary(max_size=50))
    def test_lengths(self, body: bytes) -> None:
        answer = b"HTTP/1.1 200 OK\r\nCONTENT-length: %d\r\n\r\n%b" % (len(body), body)
        self.assertEqual(self.replies(answer, answer), [body] * 2)

    def test_an_answer_that_ends_early(self) -> None:
        for answer in (b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1234"):
            with self.assertRaises(UnexpectedReply):
                self.replies(answer)


class FloorTest(SynchronousTestCase):
    def test_it_measures_all_it_speaks_of(self) -> None:
        need("nginx")
        with tempfile.TemporaryDirectory(prefix="regd-") as directory:
            floors = {floor.name: floor for floor in measure_floor(Path(directory), Path(directory), 0.001, runs=1)}
            self.assertEqual(os.listdir(directory), ["nginx-fixed", "none"])
        some = {"loopback-drop", "sha256-all", "push-tmpfs", "push-2-disk", "flush-disk", "commit-1-disk", "commit-4-disk", "nginx-fixed"}
        self.assertLessEqual(some, set(floors))
        for floor in floors.values():
            self.assertGreater(floor.value, 0, floor)
            self.assertIn(floor.unit, floor.line())


class ProcessesTest(SynchronousTestCase):
    def test_a_session_is_counted_and_ended_as_a_whole(self) -> None:
        with subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True, stdout=subprocess.PIPE) as parent:
            self.addCleanup(end_session, parent.pid)
            assert parent.stdout is not None
            parent.stdout.readline()
            self.assertEqual(len(members([parent.pid])), 2)
            usage = usage_of([parent.pid])
            # The child that has ended is in it, too.
            self.assertGreater(usage.cpu_seconds, 0.15)
            self.assertEqual(usage.processes, 2)
            self.assertTrue(0 < usage.resident <= usage.peak < usage.peak_total, usage)
            parent.kill()
            parent.wait()
            self.assertEqual(len(members([parent.pid])), 1)
            end_session(parent.pid)
            wait_until(lambda: not members([parent.pid]), 10, "the processes to end")

    def test_a_session_that_is_not_there(self) -> None:
        self.assertEqual(usage_of([2**22 + 1]).processes, 0)


class PlotTest(SynchronousTestCase):
    def setUp(self) -> None:
        try:
            from benchmarks.plot import draw, lines_of  # noqa: PLC0415 - it is an extra
        except ImportError as error:
            raise SkipTest(f"not installed: {error.name}") from None
        self.draw, self.lines_of = draw, lines_of
        temporary = tempfile.TemporaryDirectory(prefix="regd-")
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)
        self.text = json_text(
            {},
            [
                result(REQUESTS, (100, 10), (120, 10), goals=(Goal(10, "docker-registry"),)),
                result(LATENCY, (0.01, 0.05), goals=(Goal(0.02),)),
                Result("skipped", "", "disk", REQUESTS, (), []),
            ],
        )

    def test_it_is_svg_and_says_what_it_shows(self) -> None:
        path = self.directory / "plot.svg"
        self.draw(self.text, path)
        self.assertTrue(ET.parse(path).getroot().tag.endswith("}svg"))
        text = path.read_text(encoding="utf-8")
        for word in ("row, disk", "to docker-registry", "to the limit", "goal"):
            self.assertIn(word, text)

    def test_the_same_figures_make_the_same_file(self) -> None:
        paths = [self.directory / name for name in ("first.svg", "second.svg")]
        for path in paths:
            self.draw(self.text, path)
            time.sleep(0.01)
        first, second = (path.read_bytes() for path in paths)
        self.assertEqual(first, second)
        self.assertNotIn(b"dc:date", first)

    def test_a_limit_becomes_a_ratio(self) -> None:
        _, latency = self.lines_of(json.loads(self.text))
        self.assertEqual([(mark.peer, mark.ratio[0], mark.goal) for mark in latency.marks], [("docker-registry", 5, None), ("limit", 2, 1)])


class RowsTest(SynchronousTestCase):
    def test_peers_are_candidates_and_goals_are_about_peers(self) -> None:
        for row in ROWS.values():
            self.assertLessEqual(set(row.peers), set(CANDIDATES), row.name)
            self.assertLessEqual({goal.peer for goal in row.goals}, {"", *row.peers}, row.name)


class RunTest(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="regd-")
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)

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

    def measure(self, *rows: str) -> dict[str, list[str]]:
        """
        Measure rows in a very small way, on disk.

        :param rows: their names.
        :return: the peers of each.
        """
        found = self.directory / "found.json"
        status, output, errors = self.run_main(
            *(argument for row in rows for argument in ("--row", row)),
            *("--quick", "--medium", "disk", "--disk", str(self.directory), "--json", str(found)),
        )
        self.assertEqual((status, errors), (0, ""), output)
        document = json.loads(found.read_text(encoding="utf-8"))
        self.assertLessEqual({"docker-registry", "nginx", "regd", "Twisted", "Python", "Linux"}, set(document["versions"]))
        self.assertEqual([path.name for path in self.directory.iterdir()], ["found.json"])
        told = {line.split()[0] for line in output.splitlines() if " disk " in line}
        self.assertEqual(told, set(rows))
        for row in document["rows"]:
            for candidate in row["candidates"].values():
                self.assertGreater(candidate["value"]["median"], 0)
                self.assertGreater(candidate["peak_bytes_of_a_process"], 2**20)
        return {row["row"]: [part["peer"] for part in row["comparisons"]] for row in document["rows"]}

    def test_rows_run_alone_and_tell_what_they_found(self) -> None:
        need("docker-registry", "nginx")
        both = ["docker-registry", "nginx+registry"]
        self.assertEqual(self.measure("images-small", "manifest-head"), {"images-small": both, "manifest-head": both})

    def test_files_and_pages(self) -> None:
        need("docker-registry", "nginx")
        self.assertEqual(
            self.measure("range-1m", "tags-page", "catalog-page-1k"),
            {"range-1m": ["docker-registry", "nginx+registry", "nginx"], "tags-page": ["docker-registry"], "catalog-page-1k": []},
        )

    def test_a_peer_that_is_not_installed_is_left_out_with_the_reason(self) -> None:
        absent = Candidate("nginx", ("surely-not-installed",), CANDIDATES["nginx"].prepare)
        run = Run({**CANDIDATES, "nginx": absent}, Settings(0.05, 64), access_log=False, peers=["nginx"])
        measured, failure = run.compare(ROWS["pull-1"], Medium("disk", self.directory), 1)
        self.assertEqual((measured.peers, measured.skipped, failure), ([], {"nginx": "not installed: surely-not-installed"}, ""))

    def test_a_server_that_does_not_start_is_a_failure_of_its_row(self) -> None:
        def prepare(place: Place) -> list[object]:
            raise OSError(f"no room in {place.directory.name}")

        broken = Candidate("regd", (), prepare)  # type: ignore[arg-type]  # it returns nothing at all
        measured, failure = Run({"regd": broken}, Settings(), access_log=False, peers=[]).compare(
            ROWS["v2-base"], Medium("disk", self.directory), 1
        )
        self.assertEqual((list(measured.rounds), failure), ([], "v2-base on disk, regd: no room in regd"))

    def test_large_trees_make_room_for_one_another(self) -> None:
        def fill(directory: Path, _: Settings) -> Held:
            (directory / "file").touch()
            return Held(entries=1)

        medium = Medium("disk", self.directory)
        for name in ("one", "two", "two"):
            medium.fill(Data(name, shared=True, fill=fill), Settings())
        self.assertEqual([path.name for path in self.directory.iterdir()], ["two"])

    def test_the_help_names_every_row(self) -> None:
        status, output, _ = self.run_main("--help")
        self.assertEqual(status, 0)
        for row in ROWS.values():
            self.assertTrue(re.search(rf"^  {row.name} +{re.escape(row.title)}$", output, re.MULTILINE), row.name)

    def test_bad_arguments(self) -> None:
        for arguments in (
            *(["--row", "nonsense"], ["--pairs", "0"], ["--scale", "-1"], ["--medium", "tape"]),
            *(["--peer", "regd"], ["--set", "PATH=x"], ["--set", "REGISTRY_X"]),
        ):
            self.assertEqual(self.run_main(*arguments)[0], 2, arguments)
