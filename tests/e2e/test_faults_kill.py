"""
``kill -9`` at every file operation of every change, then a restart: what was acknowledged is whole, nothing half is served, and the client
can go on or begin again.
"""

import shutil
import time
from collections.abc import Callable
from typing import ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.faults import ForkedRegd, ForkServer
from tests.e2e.images import noise
from tests.e2e.ledger import LOST, Ledger, blob_file, check_blob_files, manifest_of
from tests.e2e.rawhttp import digest_of

#: A part of a scene.
Step = Callable[[Ledger], None]

#: More kills than any scene takes: one that does not end is a mistake of the test's.
MOST = 500

CONFIG = b"{}"


def nothing(ledger: Ledger) -> None:
    """No preparations."""


class KillTest(E2ETestCase):
    server: ClassVar[ForkedRegd]
    #: What of the blobs' files has been read and found whole.
    known: ClassVar[set[tuple[int, int]]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        forks = ForkServer(cls.directory / "forks")
        cls.addClassCleanup(forks.stop)
        cls.server = ForkedRegd(forks, cls.directory / "server")
        cls.addClassCleanup(cls.server.stop)
        cls.known = set()

    def setUp(self) -> None:
        self.server.disarm()
        if not self.server.program.is_alive():
            self.server.start()
        self.scenes = 0

    def die_at(self, action: str, number: int, prepare: Step, act: Step, *operations: str) -> list[int] | None:
        """
        Play a scene in a repository of its own, with a daemon that dies at one operation; start it again; check that it keeps its promises,
        that the client can go on, and that it can begin again.

        :param action: How it dies, as :class:`~tests.e2e.faulty.Plan` has it.
        :param number: At which operation, counted from 1.
        :param prepare: What goes before, undisturbed.
        :param act: What is disturbed.
        :param operations: Which operations count; none for all.
        :return: How many operations had been done at each answer, when it did not die because there are not so many; else ``None``.
        """
        self.server.disarm()
        if not self.server.program.is_alive():
            self.server.start()
        self.scenes += 1
        ledger = Ledger(self.server.client, self.server.data, f"{self._testMethodName.removeprefix('test_')}/{action}/{self.scenes}")
        prepare(ledger)
        self.settle()
        self.server.forget()
        answers: list[int] = []
        ledger.answered = lambda: answers.append(len(self.server.operations()))
        self.server.arm(action, *operations, first=number)
        try:
            act(ledger)
        except LOST:
            self.server.wait_for_end()
        else:
            # Tidying up goes on after the answer.
            self.settle()
        ledger.answered = lambda: None
        self.server.disarm()
        survived = self.server.program.is_alive()
        if not survived:
            self.server.start()
        self.check(ledger)
        again = (ledger.resume, lambda: act(ledger))
        for step in again if number % 2 else reversed(again):
            step()
        self.check(ledger)
        self.assertFalse("Traceback" in self.server.program.tail(), "a traceback is in the log")
        return answers if survived else None

    def settle(self) -> None:
        """Wait until the daemon is dead, or changes nothing any more."""
        seen, quiet = -1, time.monotonic()
        while self.server.program.is_alive() and time.monotonic() - quiet < 0.04:
            now = self.server.record.stat().st_size
            if now != seen:
                seen, quiet = now, time.monotonic()
            time.sleep(0.005)

    def check(self, ledger: Ledger) -> None:
        """
        :param ledger: What has been promised.
        """
        check_blob_files(self.server.data, self.known)
        ledger.check()

    def sweep(self, prepare: Step, act: Step, writes: bool = True) -> None:
        """
        Play a scene until it was disturbed at each of its operations: before each, after the last before each answer, and in the middle of
        each that writes bytes.

        :param prepare: What goes before, undisturbed.
        :param act: What is disturbed.
        :param writes: Whether it writes bytes at all.
        """
        count, answers = self.sweep_all("kill", prepare, act)
        self.assertGreater(count, 1, "nothing was counted")
        for last in sorted(set(answers)):
            with self.subTest(action="kill-after", number=last):
                self.die_at("kill-after", last, prepare, act)
        count, _ = self.sweep_all("tear", prepare, act, "write", "writev")
        self.assertEqual(count > 1, writes)

    def sweep_all(self, action: str, prepare: Step, act: Step, *operations: str) -> tuple[int, list[int]]:
        """
        Play a scene until no operation is left to die at. The parameters are those of :meth:`die_at`.

        :return: The number at which it did not die any more, and how many operations had then been done at each answer.
        """
        wrong = 0
        for number in range(1, MOST):
            wrong += 1
            with self.subTest(action=action, number=number):
                answers = self.die_at(action, number, prepare, act, *operations)
                wrong -= 1
                if answers is not None:
                    return number, answers
            if wrong == 3:
                break
        raise AssertionError(f"{wrong} went wrong; stopped at operation {number}")

    def test_push_in_pieces(self) -> None:
        def act(ledger: Ledger) -> None:
            upload = ledger.begin(noise(600))
            ledger.append(upload, 300)
            ledger.append(upload, 200)
            ledger.close(upload)

        self.sweep(nothing, act)

    def test_push_as_docker_does(self) -> None:
        def act(ledger: Ledger) -> None:
            upload = ledger.begin(noise(600))
            ledger.append(upload, 600)
            ledger.close(upload)

        self.sweep(nothing, act)

    def test_push_in_one_request(self) -> None:
        self.sweep(nothing, lambda ledger: ledger.push(noise(400)))

    def test_the_first_push_of_all(self) -> None:
        # Even the directories at the top have to be made.
        def prepare(ledger: Ledger) -> None:
            shutil.rmtree(self.server.data / "docker", ignore_errors=True)

        self.sweep(prepare, lambda ledger: ledger.push(noise(400)))

    def test_push_of_what_is_there(self) -> None:
        content = noise(400)

        def prepare(ledger: Ledger) -> None:
            self.server.client.push_blob("elsewhere", content)

        self.sweep(prepare, lambda ledger: ledger.push(content))

    def test_push_of_what_is_there_and_damaged(self) -> None:
        content = noise(400)

        def prepare(ledger: Ledger) -> None:
            self.server.client.push_blob("elsewhere", content)
            blob_file(self.server.data, digest_of(content)).write_bytes(content[:-1])

        def act(ledger: Ledger) -> None:
            try:
                ledger.push(content)
            except LOST:
                # It may still be what it was: damaged, but not by us. The check is for what comes of it.
                path = blob_file(self.server.data, digest_of(content))
                if path.read_bytes() == content[:-1]:
                    path.write_bytes(content)
                raise

        self.sweep(prepare, act)

    def test_mount(self) -> None:
        content = noise(400)
        self.server.client.push_blob("mount/from", content)
        self.sweep(nothing, lambda ledger: ledger.mount(content, "mount/from"))

    def test_cancel(self) -> None:
        def prepare(ledger: Ledger) -> None:
            ledger.append(ledger.begin(noise(400)), 300)

        def act(ledger: Ledger) -> None:
            for upload in ledger.uploads:
                ledger.cancel(upload)

        self.sweep(prepare, act, writes=False)

    def test_manifest_by_tag_with_subject(self) -> None:
        layer = noise(100)
        subject = manifest_of(CONFIG, layer)
        manifest = manifest_of(CONFIG, layer, subject)

        def prepare(ledger: Ledger) -> None:
            ledger.push(CONFIG)
            ledger.push(layer)
            shutil.rmtree(blob_file(self.server.data, digest_of(manifest)).parent, ignore_errors=True)

        self.sweep(prepare, lambda ledger: ledger.put("signature", manifest))

    def test_tag_overwrite(self) -> None:
        layers = noise(100), noise(100)
        old, new = (manifest_of(CONFIG, layer) for layer in layers)

        def prepare(ledger: Ledger) -> None:
            for blob in (CONFIG, *layers):
                ledger.push(blob)
            ledger.put("latest", old)
            shutil.rmtree(blob_file(self.server.data, digest_of(new)).parent, ignore_errors=True)

        self.sweep(prepare, lambda ledger: ledger.put("latest", new))

    def test_manifest_delete(self) -> None:
        layer = noise(100)
        subject = manifest_of(CONFIG, layer)
        manifest = manifest_of(CONFIG, layer, subject)

        def prepare(ledger: Ledger) -> None:
            for blob in (CONFIG, layer):
                ledger.push(blob)
            ledger.put("stays", subject)
            for tag in ("one", "two"):
                ledger.put(tag, manifest)

        self.sweep(prepare, lambda ledger: ledger.delete(manifest), writes=False)

    def test_tag_delete(self) -> None:
        layer = noise(100)
        manifest = manifest_of(CONFIG, layer)

        def prepare(ledger: Ledger) -> None:
            for blob in (CONFIG, layer):
                ledger.push(blob)
            for tag in ("goes", "stays"):
                ledger.put(tag, manifest)

        self.sweep(prepare, lambda ledger: ledger.untag("goes"), writes=False)
