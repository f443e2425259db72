"""
``docs/backup.rst``, its commands as they stand there: a backup while clients push, replace and delete, and while garbage is collected; and
what another regd makes of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.e2e.commands import command
from tests.e2e.daemon import ROOT, Regd
from tests.e2e.group import GroupTestCase
from tests.e2e.images import OCI_MANIFEST, noise
from tests.e2e.ledger import check_blob_files, manifest_of
from tests.e2e.process import need, wait_until
from tests.e2e.rawhttp import digest_of

#: Runs in place of rsync: time for clients to do something between the steps.
SLOW = """\
#!/bin/sh
sleep 0.7
exec {rsync} "$@"
"""

#: Unused data goes when it is three seconds old, and what nobody has a tag for likewise. Each push here takes some milliseconds.
COLLECTED = "{interval: 1s, grace: 3s, untagged: true}"


def documented(number: int) -> str:
    """
    :param number: Which of the scripts.
    :return: It, as ``docs/backup.rst`` has it.
    """
    text = (ROOT / "docs" / "backup.rst").read_text(encoding="utf-8")
    blocks = re.findall(r"^\.\. code-block:: sh\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return re.sub(r"(?m)^    ", "", blocks[number])


class Worker(threading.Thread):
    """
    Does something over and over.

    :param act: Called with a number that grows.
    """

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self.act = act
        self.enough = threading.Event()
        self.error: BaseException | None = None
        self.times = 0
        self.start()

    def run(self) -> None:
        """Go on until it is enough."""
        try:
            while not self.enough.is_set():
                self.act(self.times)
                self.times += 1
                time.sleep(0.01)
        # Whatever it is, the test hears it.
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def end(self) -> None:
        """Let it come to its end. May be called again."""
        self.enough.set()
        self.join()


class BackupTest(GroupTestCase):
    def setUp(self) -> None:
        need("rsync", "flock")
        self.place = self.directory / self._testMethodName
        self.server = Regd(
            self.place / "regd",
            None,
            {"REGISTRY_HTTP_WORKERS": "2", "REGISTRY_STORAGE_MAINTENANCE_GARBAGECOLLECT": COLLECTED},
        )
        self.addCleanup(self.server.stop)
        self.server.start()
        self.wait_ready(self.server, 2)
        self.images: dict[str, tuple[bytes, bytes, bytes]] = {}

    def push(self, name: str, tag: str) -> str:
        """
        :return: The digest of a new image that has been acknowledged.
        """
        config, layer = noise(100), noise(2000)
        manifest = manifest_of(config, layer)
        for content in (config, layer):
            self.server.client.push_blob(name, content)
        digest = self.server.client.push_manifest(name, tag, OCI_MANIFEST, manifest)
        self.images[digest] = (manifest, config, layer)
        return digest

    def delete(self, name: str, digest: str) -> None:
        """
        :param digest: Of a manifest, which goes with its tags.
        """
        answer = self.server.client.request("DELETE", f"/v2/{name}/manifests/{digest}")
        self.assertEqual(answer.status, 202, answer)

    def script(self, number: int, values: Mapping[str, str], slow: bool = True) -> subprocess.Popen[str]:
        """
        Run a documented script.

        :param values: What its variables are here.
        :param slow: Whether there is a pause before each copying.
        """
        text = documented(number)
        for variable, value in values.items():
            text, count = re.subn(rf"(?m)^{variable}=.*$", f"{variable}={value}", text)
            self.assertEqual(count, 1, variable)
        environment = dict(os.environ)
        if slow:
            shim = self.place / "bin" / "rsync"
            shim.parent.mkdir(exist_ok=True)
            shim.write_text(SLOW.format(rsync="/usr/bin/rsync"), encoding="ascii")
            shim.chmod(0o755)
            environment["PATH"] = f"{shim.parent}:{environment['PATH']}"
        path = self.place / "script"
        path.write_text(text, encoding="utf-8")
        return subprocess.Popen(["/bin/sh", str(path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def back_up(self, to: Path, *, slow: bool = True) -> None:
        """
        :param to: The directory of the backup.
        """
        first = not (self.place / "last").exists()
        process = self.script(0, {"FROM": str(self.server.data), "TO": str(to), "LAST": str(self.place / "last")}, slow)
        said, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, said)
        lines = [line for line in said.splitlines() if not (first and line.startswith("--link-dest arg does not exist: "))]
        self.assertEqual(lines, [])

    def restored(self, to: Path, data: Path) -> Regd:
        """
        :param to: A backup.
        :param data: Where to.
        :return: A daemon on the copy. A scrub of that has found nothing wrong.
        """
        data.mkdir()
        subprocess.run(["rsync", "-a", f"{to}/docker", f"{data}/"], check=True)
        server = Regd(self.place / f"of-{data.name}", data)
        self.addCleanup(server.stop)
        scrub = command(server, "regd", "scrub")
        self.assertEqual(scrub.returncode, 0, scrub.stdout + scrub.stderr)
        self.assertIn("damaged: 0", scrub.stdout)
        check_blob_files(data)
        server.start()
        return server

    def check(self, server: Regd, name: str, tag: str) -> str:
        """
        :return: The digest of the image that a tag means, all of which is there.
        """
        answer = server.client.get(f"/v2/{name}/manifests/{tag}", Accept=OCI_MANIFEST)
        self.assertEqual(answer.status, 200, f"{name}:{tag}: {answer}")
        digest = digest_of(answer.body)
        manifest, *blobs = self.images[digest]
        self.assertEqual(answer.body, manifest)
        for blob in blobs:
            self.assertEqual(server.client.get(f"/v2/{name}/blobs/{digest_of(blob)}").body, blob)
        return digest

    def test_while_clients_push_and_delete(self) -> None:
        client = self.server.client
        stays = [self.push("stays/here", f"v{number}") for number in range(5)]
        goes = [self.push("goes/away", f"v{number}") for number in range(250)]
        moving = [self.push("moves/on", "latest")]
        arrived: list[str] = []
        went: list[int] = []
        client.begin_upload("stays/here")

        def replace(_: int) -> None:
            moving.append(self.push("moves/on", "latest"))
            self.delete("moves/on", moving[-2])

        def arrive(number: int) -> None:
            self.push(f"comes/by{number % 7}", f"v{number}")
            arrived.append(f"comes/by{number % 7}:v{number}")

        def go(number: int) -> None:
            if number < len(goes):
                self.delete("goes/away", goes[number])
                went.append(number)

        workers = [Worker(replace), Worker(arrive), Worker(go)]
        for worker in workers:
            self.addCleanup(worker.end)
        for turn in range(2):
            time.sleep(0.5)
            before = len(arrived), len(moving) - 1, len(went)
            to = self.place / f"day{turn}"
            self.back_up(to)
            after = len(went)
            self.assertEqual([worker.error for worker in workers], [None] * 3)
            # Something has happened meanwhile.
            self.assertGreater(len(arrived) - before[0], 10)
            with self.subTest(turn=turn):
                server = self.restored(to, self.place / f"restored{turn}")
                self.assertEqual([self.check(server, "stays/here", f"v{number}") for number in range(5)], stays)
                self.assertGreaterEqual(moving.index(self.check(server, "moves/on", "latest")), before[1])
                for image in arrived[: before[0]]:
                    self.check(server, *image.rsplit(":", 1))
                for number in range(len(goes)):
                    if number < before[2]:
                        self.assertEqual(server.client.get(f"/v2/goes/away/manifests/v{number}", Accept=OCI_MANIFEST).status, 404)
                    elif number > after:
                        self.assertEqual(self.check(server, "goes/away", f"v{number}"), goes[number])
                server.stop()
        for worker in workers:
            worker.end()
        self.assertEqual([worker.error for worker in workers], [None] * 3)
        self.assertFalse((self.server.data / "backup").exists())
        # A collection that was due meanwhile was left out; others have taken things away.
        output = self.server.program.output()
        self.assertIn("garbage collection: another one is under way on this directory", output)
        self.assertRegex(output, r"garbage collection: .*; [1-9]\d* blobs swept")
        # What was there the day before is there once on the disk.
        kept = f"docker/registry/v2/blobs/sha256/{stays[0][7:9]}/{stays[0][7:]}/data"
        self.assertEqual(len({(self.place / f"day{turn}" / kept).stat().st_ino for turn in range(2)}), 1)
        link = f"docker/registry/v2/repositories/stays/here/_manifests/revisions/sha256/{stays[0][7:]}/link"
        self.assertEqual(len({(self.place / f"day{turn}" / link).stat().st_ino for turn in range(2)}), 1)
        self.assertEqual(list((self.place / "day1").rglob("_uploads")), [])

    def test_one_that_is_killed(self) -> None:
        self.push("some/app", "v1")
        values = {"FROM": str(self.server.data), "TO": str(self.place / "day"), "LAST": str(self.place / "last")}
        process = self.script(0, values)
        wait_until((self.server.data / "backup").is_dir, 10, "the links")
        time.sleep(0.2)
        process.kill()
        process.communicate()
        # rsync, which was started by it, has the lock until it ends.
        self.push("some/app", "v2")
        self.delete("some/app", self.push("some/app", "v3"))
        self.back_up(self.place / "day", slow=False)
        server = self.restored(self.place / "day", self.place / "restored")
        for tag in ("v1", "v2"):
            self.check(server, "some/app", tag)
        self.assertEqual(server.client.get("/v2/some/app/manifests/v3", Accept=OCI_MANIFEST).status, 404)

    def test_a_backup_is_served(self) -> None:
        """As it is, read-only."""
        self.push("some/app", "v1")
        self.back_up(self.place / "day", slow=False)
        server = Regd(
            self.place / "other",
            self.place / "last",
            {
                "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(self.place / "last"),
                "REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true",
            },
        )
        self.addCleanup(server.stop)
        server.start()
        self.check(server, "some/app", "v1")
        self.assertEqual(server.client.request("POST", "/v2/some/app/blobs/uploads/", b"").status, 405)
        self.assertEqual([path.name for path in (self.place / "day").iterdir()], ["docker"])
