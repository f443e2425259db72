"""
A collection on a disk that fails, or in a process that is killed, at every file operation: nothing that is reachable is lost, nothing is
left in the way of pushes, and the next collection leaves exactly what one leaves that nobody disturbed.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import ClassVar

from regd.maintenance import blocking
from regd.maintenance.gate import Gate
from regd.manifest import OCI_IMAGE, OCI_INDEX
from regd.names import Digest, Reference, RepositoryName, Tag
from regd.registry.core import Registry
from regd.registry.rules import ManifestRules
from regd.storage import layout
from regd.storage.damage import Damage
from tests.e2e.case import E2ETestCase
from tests.e2e.faults import FaultyRegd, ForkedCommand, ForkServer
from tests.e2e.faulty import Operation
from tests.e2e.powercut import Disk
from tests.registry.case import descriptor
from tests.support import FakeBody

#: More operations than any of these collections takes: one that does not end is a mistake of the test's.
MOST = 500

#: How old everything is, in seconds: older than the grace period.
AGE = 7200

#: A file's content by its path below the root.
Tree = dict[str, bytes]


class Maker:
    """
    Makes a registry with something of everything that a collection removes or keeps.

    :param root: The root directory of its storage.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._driver = blocking.filesystem(str(root))
        self._driver.start()
        gate = Gate(self._driver, blocking.sleep)
        self._registry = Registry(self._driver, Damage(), ManifestRules(), time.time, blocking.sleep, gate, 0.0)

    def push(self, name: str, content: bytes, algorithm: str = "sha256") -> Digest:
        """
        :return: The digest of a blob that is now there.
        """
        uploads = self._registry.uploads
        upload = blocking.run(uploads.start(RepositoryName(name), algorithm))
        return blocking.run(uploads.finish(upload, Digest.of(content, algorithm), FakeBody(content)))

    def put(self, name: str, reference: str | None, document: dict[str, object]) -> bytes:
        """
        :return: A manifest that is now there, under a tag, or with none under its digest.
        """
        content = json.dumps({"schemaVersion": 2, **document}).encode()
        wanted: Reference = Digest.of(content) if reference is None else Tag(reference)
        blocking.run(self._registry.manifests.put(RepositoryName(name), wanted, content))
        return content

    def image(self, name: str, reference: str | None, *layers: bytes, subject: bytes | None = None) -> bytes:
        """
        :return: The manifest of an image that is now there.
        """
        for content in (b"{}", *layers):
            self.push(name, content)
        document = {"mediaType": OCI_IMAGE, "config": descriptor(b"{}"), "layers": [descriptor(layer) for layer in layers]}
        return self.put(name, reference, document | ({} if subject is None else {"subject": descriptor(subject, OCI_IMAGE)}))

    def make(self) -> None:
        """Make it, and let it be old."""
        held = self.image("kept/images", "latest", b"a layer", b"another")
        self.image("kept/images", None, b"of a referrer", subject=held)
        children = [self.image("kept/images", None, b"for one platform"), self.image("kept/images", None, b"for another")]
        self.put("kept/images", "index", {"mediaType": OCI_INDEX, "manifests": [descriptor(child, OCI_IMAGE) for child in children]})
        self.push("kept/images", b"a layer", "sha512")
        # What goes: untagged manifests with what only they hold, and what refers to them.
        gone = self.image("kept/images", "moved", b"of an old image", b"another")
        self.image("kept/images", None, b"of its referrer", subject=gone)
        child = self.image("kept/images", None, b"of the child of an old index")
        self.put("kept/images", None, {"mediaType": OCI_INDEX, "manifests": [descriptor(child, OCI_IMAGE)]})
        self.image("kept/images", "moved", b"of a new image")
        self.push("kept/images", b"never used")
        # A repository of which nothing is left, beside one that is kept, and one with nothing but an upload.
        emptied = self.image("gone/deep/images", "latest", b"of a deleted image")
        blocking.run(self._registry.manifests.delete(RepositoryName("gone/deep/images"), Digest.of(emptied)))
        blocking.run(self._registry.uploads.start(RepositoryName("begun/images")))
        # Blobs that no repository links.
        for number in range(3):
            content = b"garbage %d" % number
            blocking.run(self._driver.write((layout.blob_data(Digest.of(content)), content)))
        self._driver.stop()
        then = time.time() - AGE
        for directory, _, names in os.walk(self._root):
            for name in names:
                os.utime(f"{directory}/{name}", (then, then))


def tree_of(root: Path) -> Tree:
    """
    :param root: The root directory of a storage.
    :return: The files of the registry below it, without regd's own.
    """
    top = root / "docker"
    return {str(path.relative_to(root)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def directories_of(root: Path) -> set[str]:
    """
    :param root: The root directory of a storage.
    :return: The directories of the registry below it.
    """
    return {str(path.relative_to(root)) for path in (root / "docker").rglob("*") if path.is_dir()}


class CollectionTestCase(E2ETestCase):
    """
    :ivar made: A registry; each test works on a copy of it.
    :ivar before: Its files.
    :ivar after: Those that a collection leaves.
    """

    made: ClassVar[Path]
    server: ClassVar[FaultyRegd]
    command: ClassVar[ForkedCommand]
    before: ClassVar[Tree]
    after: ClassVar[Tree]
    after_directories: ClassVar[set[str]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        forks = ForkServer(cls.directory / "forks")
        cls.addClassCleanup(forks.stop)
        cls.made = cls.directory / "made"
        cls.made.mkdir()
        Maker(cls.made).make()
        cls.server = FaultyRegd(cls.directory / "server")
        cls.command = ForkedCommand(forks, cls.server)
        cls.before = tree_of(cls.made)
        cls.renew()
        status = cls.collect()
        assert status == 0, cls.command.output()
        cls.after, cls.after_directories = tree_of(cls.server.data), directories_of(cls.server.data)

    @classmethod
    def renew(cls) -> None:
        """Begin again with what was made."""
        cls.server.disarm()
        shutil.rmtree(cls.server.data)
        shutil.copytree(cls.made, cls.server.data)
        cls.server.forget()

    @classmethod
    def collect(cls) -> int | None:
        """
        :return: The exit status of a collection that removes all that may go.
        """
        return cls.command.run("garbage-collect", "--delete-untagged", "--quiet")

    def check_reachable(self) -> None:
        """What a collection keeps is there, to the byte, and nothing is that was not."""
        found = tree_of(self.server.data)
        for path, content in self.after.items():
            self.assertEqual(found.get(path), content, path)
        self.assertLessEqual(found.items(), self.before.items())

    def check_open(self) -> None:
        """No lock is left behind: a push would pass."""
        for name in ("gate", "gate.queue", "collector"):
            path = self.server.data / "regd" / name
            if path.exists():
                fd = os.open(path, os.O_RDWR)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                finally:
                    os.close(fd)

    def check_collected(self) -> None:
        """What the next collection leaves is what one leaves that nobody disturbed."""
        self.server.disarm()
        self.assertEqual(self.collect(), 0, self.command.output())
        found = tree_of(self.server.data)
        self.assertEqual(found.keys(), self.after.keys())
        self.assertEqual(found, self.after)
        self.assertEqual(directories_of(self.server.data), self.after_directories)
        self.assertEqual(list((self.server.data / "regd/trash").glob("*/*")), [])
        self.assertFalse((self.server.data / "regd/collecting").exists())

    def total(self) -> list[Operation]:
        """
        :return: What a collection does that nobody disturbs.
        """
        self.renew()
        self.assertEqual(self.collect(), 0, self.command.output())
        return self.server.operations()


class CollectionTest(CollectionTestCase):
    def test_what_the_scene_is_about(self) -> None:
        contents = set(self.before.values()) - set(self.after.values())
        old = (b"of an old image", b"of its referrer", b"of the child of an old index")
        for gone in (*old, b"never used", b"of a deleted image", b"garbage 2"):
            self.assertIn(gone, contents)
        kept = set(self.after.values())
        for content in (b"a layer", b"another", b"of a referrer", b"for one platform", b"for another", b"of a new image", b"{}"):
            self.assertIn(content, kept)
        self.assertFalse(any("gone" in path for path in self.after_directories), self.after_directories)
        self.assertTrue(any("begun/images/_uploads" in path for path in self.after))

    def test_killed_at_every_operation(self) -> None:
        count = len(self.total())
        self.assertTrue(30 < count < MOST, count)
        wrong = 0
        for number in range(1, count + 1):
            wrong += 1
            with self.subTest(number=number):
                self.renew()
                self.server.arm("kill", first=number)
                self.assertIsNone(self.collect(), self.command.output())
                self.check_open()
                self.check_reachable()
                self.check_collected()
                wrong -= 1
            self.assertLess(wrong, 3, "too much went wrong")

    def test_killed_within_a_write(self) -> None:
        writes = [operation for operation in self.total() if operation.name in {"write", "writev"}]
        for number in range(1, len(writes) + 1):
            with self.subTest(number=number):
                self.renew()
                self.server.arm("tear", "write", "writev", first=number)
                self.assertIsNone(self.collect())
                self.check_reachable()
                self.check_collected()

    def fail_at(self, number: int, error: int, *operations: str, last: int | None = None) -> None:
        """
        :param number: The first operation that fails.
        :param error: How.
        :param operations: Which are counted; none for all that change the disk.
        :param last: The last that fails; ``None`` for all from the first on.
        """
        with self.subTest(number=number, error=errno.errorcode[error], operations=operations, last=last):
            self.renew()
            self.server.arm("fail", *operations, first=number, last=last, error=error)
            status = self.collect()
            said = self.command.output()
            self.assertIsNotNone(status, "it was killed")
            self.assertNotIn("Traceback", said)
            if status:
                # It says what the disk said.
                self.assertIn(os.strerror(error), said)
            self.check_open()
            self.check_reachable()
            self.check_collected()

    def test_one_operation_fails(self) -> None:
        count = len(self.total())
        for number in range(1, count + 1, 3):
            self.fail_at(number, errno.EIO, last=number)

    def test_a_disk_that_goes_on_failing(self) -> None:
        operations = self.total()
        names = [operation.name for operation in operations]
        for name in sorted(set(names)):
            for error in (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE):
                self.fail_at(1, error, name)
        for number in range(1, len(operations) + 1, 7):
            self.fail_at(number, errno.EROFS)

    def test_what_cannot_be_read(self) -> None:
        # A list that cannot be had says nothing of what is not needed.
        for name in ("list", "open", "read", "stat"):
            self.fail_at(1, errno.EMFILE, name)
            for number in (1, 3, 10, 25, 45):
                self.fail_at(number, errno.EIO, name, last=number)

    def test_a_power_cut_anywhere(self) -> None:
        self.renew()
        disk = Disk(self.server.data)
        self.assertEqual(self.collect(), 0)
        root = f"{self.server.data}/"
        removed = 0
        for operation in self.server.operations():
            if operation.outcome == "done" and operation.name == "unlink" and "/regd/trash/" in operation.path:
                removed += 1
                # Had this been written to the disk, and nothing that was not asked for, then what is found has to be whole.
                safe = {path.removeprefix(root): text for path, text in disk.safe_files() if "/regd/" not in path}
                name = Path(operation.path).name
                for path, digest in safe.items():
                    if path.endswith("/link"):
                        self.assertIn(layout.blob_data(Digest(digest)), safe, f"{path} would point to nothing before {operation.path} goes")
                self.assertFalse(disk.is_safe_elsewhere(operation.path), f"{name} would be found again under its old name, empty")
            disk.apply(operation)
        self.assertGreater(removed, 10)
