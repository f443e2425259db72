"""What a daemon does by itself, in a process of its own: garbage is collected, and abandoned uploads are purged."""

import fcntl
import json
import os
import signal
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tests.e2e.case import E2ETestCase
from tests.e2e.commands import command
from tests.e2e.daemon import Regd
from tests.e2e.images import noise
from tests.e2e.ledger import blob_file, manifest_of
from tests.e2e.process import free_port, wait_until
from tests.e2e.rawhttp import Client, digest_of

OFF = "uploadpurging:\n      enabled: false"


def on(age: str = "1h", interval: str = "1s", *, dryrun: bool = False) -> str:
    """
    :return: The section, to stand in the place of :data:`OFF`.
    """
    return f"uploadpurging: {{age: {age}, interval: {interval}, dryrun: {str(dryrun).lower()}}}"


def child_of(server: Regd) -> int | None:
    """
    :return: The process of a chore that is under way.
    """
    for pid in server.program.children():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"regd.maintain" in command:
            return pid
    return None


def gone(path: Path) -> bool:
    """
    :return: Whether there is nothing at a path.
    """
    return not path.exists()


class UpkeepCase(E2ETestCase):
    """A test case that makes daemons with abandoned uploads."""

    def make(self, workers: int, text: str, **environment: str) -> Regd:
        """
        :param workers: How many serve.
        :param text: Stands in the place of :data:`OFF` in the configuration.
        :return: A daemon, not started, that tells of itself on a port of its own.
        """
        self.debug_port = free_port()
        settings = {"REGISTRY_HTTP_WORKERS": str(workers), "REGISTRY_HTTP_DEBUG_ADDR": f"127.0.0.1:{self.debug_port}", **environment}
        server = Regd(self.directory / self._testMethodName / str(workers), None, settings)
        self.addCleanup(server.stop)
        self.replace(server, OFF, text)
        return server

    def replace(self, server: Regd, old: str, new: str) -> None:
        text = server.configuration.read_text(encoding="utf-8")
        self.assertIn(old, text)
        server.configuration.write_text(text.replace(old, new), encoding="utf-8")

    def reread(self, server: Regd) -> None:
        """Have it read its configuration again, and wait until it has."""
        before = server.program.output().count("was read again")
        server.program.send(signal.SIGHUP)
        wait_until(lambda: server.program.output().count("was read again") > before, 10, "the configuration to be read again")

    def abandoned(self, server: Regd, hours: float, repository: str = "some/app") -> Path:
        """
        :param hours: How long ago it began.
        :return: The directory of an upload.
        """
        directory = server.data / "docker/registry/v2/repositories" / repository / "_uploads" / str(uuid.uuid4())
        directory.mkdir(parents=True)
        began = datetime.now(UTC) - timedelta(hours=hours)
        (directory / "startedat").write_text(began.strftime("%Y-%m-%dT%H:%M:%SZ"), encoding="ascii")
        (directory / "data").write_bytes(b"x" * 1000)
        return directory

    def variables(self, key: str = "uploadpurging") -> dict[str, Any]:
        """
        :return: What the daemon says of its purges, or of its collections.
        """
        answer = Client(self.debug_port).get("/debug/vars")
        self.assertEqual(answer.status, 200)
        found: dict[str, Any] = json.loads(answer.body)[key]
        return found

    def wait_log(self, server: Regd, text: str, count: int = 1, seconds: float = 20) -> None:
        wait_until(lambda: server.program.output().count(text) >= count, seconds, f"{text!r} in the log")


class PurgeTest(UpkeepCase):
    def test_it_happens_by_itself(self) -> None:
        for workers in (1, 2):
            server = self.make(workers, on())
            old, young = self.abandoned(server, 2), self.abandoned(server, 0.5)
            server.start()
            wait_until(partial(gone, old), 20, "the old upload to be removed")
            self.assertTrue(young.exists())
            self.wait_log(server, "purge of uploads: 1 of 2 uploads in 1 repositories removed, 1000 bytes freed, ")
            (line,) = [line for line in server.program.output().splitlines() if "purge of uploads: 1 of 2" in line]
            self.assertRegex(line, r" repositories=1 uploads=2 removed=1 bytes_freed=1000 busy=0 skipped=0 dryrun=false finished=true$")
            shown = self.variables()
            self.assertTrue(shown["last"]["finished"])
            self.assertEqual(shown["failures"], 0)
            server.stop()

    def test_dry_run(self) -> None:
        server = self.make(1, on(dryrun=True))
        old = self.abandoned(server, 2)
        server.start()
        self.wait_log(server, f"dry run: upload {old.name} of some/app, which began at ")
        self.wait_log(server, "purge of uploads: dry run: 1 of 1 uploads")
        self.assertTrue(old.exists())
        self.assertTrue(self.variables()["last"]["dryrun"])

    def test_sighup(self) -> None:
        server = self.make(1, OFF)
        server.start()
        self.assertIsNone(self.variables()["next"])
        old = self.abandoned(server, 2)
        self.replace(server, OFF, on())
        self.reread(server)
        wait_until(lambda: not old.exists(), 20, "the upload to be removed")
        self.replace(server, on(), OFF)
        self.reread(server)
        self.assertIsNone(self.variables()["next"])
        # A run that has begun may still end.
        wait_until(lambda: child_of(server) is None, 10, "the run to end")
        another = self.abandoned(server, 2)
        time.sleep(2.5)
        self.assertTrue(another.exists())

    def test_read_only(self) -> None:
        server = self.make(1, on(), REGISTRY_LOG_LEVEL="debug")
        self.replace(server, "readonly:\n      enabled: false", "readonly:\n      enabled: true")
        old = self.abandoned(server, 2)
        server.start()
        time.sleep(2.5)
        self.assertTrue(old.exists())
        self.assertEqual(server.program.output().count("nothing is removed while storage.maintenance.readonly.enabled is true"), 1)
        self.replace(server, "readonly:\n      enabled: true", "readonly:\n      enabled: false")
        self.reread(server)
        wait_until(lambda: not old.exists(), 20, "the upload to be removed")


class EndTest(UpkeepCase):
    """Ends of processes in the middle of a run, which an empty directory of an upload makes two seconds long."""

    def running(self, workers: int) -> tuple[Regd, int]:
        """
        :return: A daemon, and the process of its run.
        """
        server = self.make(workers, on(interval="3s"))
        self.empty = server.data / "docker/registry/v2/repositories/app/_uploads" / str(uuid.uuid4())
        self.empty.mkdir(parents=True)
        server.start()
        wait_until(lambda: child_of(server) is not None, 20, "a run")
        pid = child_of(server)
        assert pid is not None
        return server, pid

    def test_the_child_is_killed(self) -> None:
        server, pid = self.running(2)
        os.kill(pid, signal.SIGKILL)
        self.wait_log(server, "purge of uploads failed: its process was killed by SIGKILL")
        self.wait_log(server, "purge of uploads is tried again at ")
        wait_until(lambda: not self.empty.exists(), 20, "another run to end")
        self.assertEqual(self.variables()["failures"], 1)

    def test_the_daemon_is_stopped(self) -> None:
        """At any moment, that of the interpreter's start included."""
        for workers, delay in ((1, 0.0), (2, 0.1), (2, 0.5), (1, 1.0)):
            server, pid = self.running(workers)
            time.sleep(delay)
            start = time.monotonic()
            server.stop()
            self.assertLess(time.monotonic() - start, 10)
            self.assertFalse(Path(f"/proc/{pid}").exists())
            self.assertNotIn("level=error", server.program.output())

    def test_the_daemon_is_killed(self) -> None:
        server, pid = self.running(2)
        time.sleep(0.5)
        server.kill()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, "the child to end")


class CollectionTest(UpkeepCase):
    """With ``grace: 0s``, which nobody should have who pushes meanwhile."""

    ON = "garbagecollect: {interval: 1s, grace: 0s}\n    " + OFF

    def garbage(self, server: Regd, count: int) -> list[Path]:
        """
        :return: Blobs that nothing refers to.
        """
        made = []
        for _ in range(count):
            content = noise(100)
            path = blob_file(server.data, digest_of(content))
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            made.append(path)
        return made

    def push(self, server: Regd) -> str:
        """
        :return: The digest of a manifest that has a tag.
        """
        config, layer = noise(200), noise(300)
        for content in (config, layer):
            server.client.push_blob("some/app", content)
        return server.client.push_manifest("some/app", "latest", "application/vnd.oci.image.manifest.v1+json", manifest_of(config, layer))

    def gone(self, files: list[Path]) -> bool:
        return not any(path.exists() for path in files)

    def lines(self, server: Regd, text: str) -> list[str]:
        return [line for line in server.program.output().splitlines() if text in line]

    def test_it_happens_by_itself(self) -> None:
        for workers in (1, 2):
            server = self.make(workers, OFF)
            server.start()
            digest = self.push(server)
            blobs = self.garbage(server, 5)
            self.replace(server, OFF, self.ON)
            self.reread(server)
            wait_until(partial(self.gone, blobs), 20, "the garbage to be removed")
            self.wait_log(server, "5 blobs swept, 500 bytes freed")
            (line,) = self.lines(server, "5 blobs swept")
            self.assertIn("garbage collection: 1 repositories, 1 manifests, 3 blobs marked; 5 blobs swept, 500 bytes freed; 0 blobs", line)
            self.assertRegex(line, r" repositories=1 manifests=1 blobs=3 blobs_swept=5 bytes_freed=500 .* finished=true error=\"\"$")
            shown = self.variables("garbagecollect")
            self.assertTrue(shown["last"]["finished"])
            self.assertEqual((shown["last"]["blobs"], shown["failures"]), (3, 0))
            self.assertEqual(server.client.get("/v2/some/app/manifests/latest").headers["docker-content-digest"], digest)
            server.stop()
            self.assertEqual(self.lines(server, "level=error"), [])

    def test_sighup_switches_it_off_and_on(self) -> None:
        server = self.make(2, self.ON)
        blobs = self.garbage(server, 1)
        server.start()
        wait_until(partial(self.gone, blobs), 20, "the garbage to be removed")
        self.replace(server, "interval: 1s, grace: 0s", "interval: 1s, grace: 0s, enabled: false")
        self.reread(server)
        wait_until(lambda: child_of(server) is None, 10, "the run to end")
        self.assertIsNone(self.variables("garbagecollect")["next"])
        blobs = self.garbage(server, 1)
        time.sleep(2.5)
        self.assertFalse(self.gone(blobs))
        self.replace(server, "grace: 0s, enabled: false", "grace: 0s")
        self.reread(server)
        wait_until(partial(self.gone, blobs), 20, "the garbage to be removed")

    def test_deletes_that_are_off(self) -> None:
        server = self.make(1, self.ON, REGISTRY_STORAGE_DELETE_ENABLED="false")
        server.start()
        self.assertIsNone(self.variables("garbagecollect")["next"])

    def test_dry_run(self) -> None:
        server = self.make(1, self.ON.replace("grace: 0s", "grace: 0s, dryrun: true"))
        blobs = self.garbage(server, 1)
        server.start()
        self.wait_log(server, f"garbage collection: dry run: blob sha256:{blobs[0].parent.name} of 100 bytes would be removed")
        self.wait_log(server, "garbage collection: dry run: 0 repositories, ")
        self.assertFalse(self.gone(blobs))
        self.assertTrue(self.variables("garbagecollect")["last"]["dryrun"])

    def test_storage_in_memory(self) -> None:
        server = self.make(1, self.ON)
        text = server.configuration.read_text(encoding="utf-8")
        server.configuration.write_text(text.replace(f"filesystem:\n    rootdirectory: {server.data}", "inmemory:"), encoding="utf-8")
        server.start()
        digest = self.push(server)
        lost = noise(50)
        server.client.push_blob("some/app", lost)
        wait_until(lambda: server.client.get(f"/v2/some/app/blobs/{digest_of(lost)}").status == 404, 20, "the garbage to be removed")
        self.assertEqual(server.program.children(), [])
        self.assertEqual(server.client.get("/v2/some/app/manifests/latest").headers["docker-content-digest"], digest)

    def test_beside_another_one(self) -> None:
        """As a run of the command."""
        server = self.make(2, self.ON)
        (server.data / "regd").mkdir()
        blobs = self.garbage(server, 1)
        with (server.data / "regd/collector").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            server.start()
            self.wait_log(server, "level=info msg=\"garbage collection: another one is under way on this directory", 2)
            self.assertFalse(self.gone(blobs))
        wait_until(partial(self.gone, blobs), 20, "the garbage to be removed")
        self.assertEqual(self.variables("garbagecollect")["failures"], 0)

    def test_a_command_is_seen(self) -> None:
        server = self.make(1, "garbagecollect: {enabled: false, grace: 0s}\n    " + OFF)
        blobs = self.garbage(server, 3)
        server.start()
        self.assertIsNone(self.variables("garbagecollect")["last"])
        self.assertEqual(command(server, "regd", "garbage-collect").returncode, 0)
        self.assertTrue(self.gone(blobs))
        shown = self.variables("garbagecollect")
        self.assertEqual((shown["last"]["blobs_swept"], shown["runs"], shown["next"]), (3, 0, None))

    def test_a_command_during_a_run(self) -> None:
        server, pid, blobs = self.slow(1)
        done = command(server, "regd", "garbage-collect")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("is collecting the garbage of this directory already", done.stderr)
        self.assertTrue(Path(f"/proc/{pid}").exists())
        self.assertFalse(self.gone(blobs))

    def slow(self, workers: int) -> tuple[Regd, int, list[Path]]:
        """
        :return: A daemon, the process of a run that takes long, and what is to be removed.
        """
        server = self.make(workers, self.ON.replace("grace: 0s", "grace: 0s, maxrate: 20"))
        blobs = self.garbage(server, 200)
        server.start()
        wait_until(lambda: child_of(server) is not None, 20, "a run")
        pid = child_of(server)
        assert pid is not None
        time.sleep(2)
        return server, pid, blobs

    def test_the_daemon_is_stopped(self) -> None:
        for workers in (1, 2):
            server, pid, blobs = self.slow(workers)
            start = time.monotonic()
            server.stop()
            self.assertLess(time.monotonic() - start, 5)
            self.assertFalse(Path(f"/proc/{pid}").exists())
            self.assertEqual(len(self.lines(server, "(stopped before its end; the next one goes on)")), 1)
            self.assertFalse(self.gone(blobs))
            self.replace(server, ", maxrate: 20", "")
            server.start()
            wait_until(partial(self.gone, blobs), 20, "the garbage to be removed")

    def test_the_child_is_killed(self) -> None:
        server, pid, blobs = self.slow(2)
        os.kill(pid, signal.SIGKILL)
        self.wait_log(server, "garbage collection failed: its process was killed by SIGKILL")
        self.wait_log(server, "garbage collection is tried again at ")
        self.replace(server, ", maxrate: 20", "")
        self.reread(server)
        wait_until(partial(self.gone, blobs), 30, "the garbage to be removed")
        shown = self.variables("garbagecollect")
        self.assertGreaterEqual(shown["failures"], 1)

    def test_the_daemon_is_killed(self) -> None:
        server, pid, blobs = self.slow(2)
        server.kill()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, "the child to end")
        self.assertFalse(self.gone(blobs))

    def test_read_only_during_a_run(self) -> None:
        server, pid, blobs = self.slow(1)
        self.replace(server, "readonly:\n      enabled: false", "readonly:\n      enabled: true")
        self.reread(server)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, "the child to end")
        time.sleep(2)
        self.assertIsNone(child_of(server))
        self.assertFalse(self.gone(blobs))
