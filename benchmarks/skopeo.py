"""A client of a soak that somebody else has written: ``skopeo`` copies images to the registry and back, and deletes them."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.soaking import Image, Tally
from benchmarks.wire import HOST
from tests.e2e.case import Tool
from tests.e2e.images import OCI_MANIFEST, Descriptor, OciLayout, noise

__all__ = ["SkopeoClient"]

_REPOSITORY: Final = "skopeo/images"

#: How many images there are; the layers of one are those of the next, but for one.
_IMAGES: Final = 4

#: How often a push is tried.
_TRIES: Final = 25

#: What skopeo says where it was told that something has been collected, or that the registry is closed.
_AGAIN: Final = ("blob unknown", "BLOB_UNKNOWN", "503", "Service Unavailable", "UNAVAILABLE")


class SkopeoClient:
    """
    :param port: of the registry.
    :param directory: for what it keeps; made here.
    :raises SkipTest: where skopeo is not installed.
    """

    def __init__(self, port: int, directory: Path) -> None:
        directory.mkdir()
        self._tool = Tool(directory, "skopeo")
        self._target = f"docker://{HOST}:{port}/{_REPOSITORY}"
        self._layout = OciLayout(directory / "layout")
        layers = [noise(20_000, seed) for seed in range(_IMAGES + 1)]
        made = [self._layout.add_image("amd64", layers[number : number + 2]) for number in range(_IMAGES)]
        self._sources = [self._layout.tag(f"t{number}", descriptor) for number, descriptor in enumerate(made)]
        self._images = [self._image(descriptor) for descriptor in made]
        self.tally = Tally()

    def _image(self, descriptor: Descriptor) -> Image:
        path = self._layout.directory / "blobs/sha256" / descriptor.digest.partition(":")[2]
        document = json.loads(path.read_bytes())
        blobs = tuple(part["digest"] for part in (document["config"], *document["layers"]))
        return Image(path.read_bytes(), OCI_MANIFEST, blobs)

    def run(self, seconds: float) -> Tally:
        """
        Push, pull and delete for some time.

        :return: what was seen.
        """
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end and not self.tally.failures:
            which = number % _IMAGES
            self._push(which)
            self._pull(which)
            if number % 3 == 2:
                self._delete(which)
            number += 1
        return self.tally

    def _push(self, which: int) -> None:
        begun = time.monotonic()
        for number in range(1, _TRIES + 1):
            self.tally.most_tries = max(self.tally.most_tries, number)
            done = self._run("copy", "--dest-tls-verify=false", self._sources[which], f"{self._target}:t{which}")
            if done.returncode == 0:
                self.tally.counts["pushes by skopeo"] += 1
                self.tally.live[_REPOSITORY, f"t{which}"] = self._images[which]
                return
            if not self._may_try_again("push", done):
                return
        self.tally.failures.append(f"skopeo could not push in {_TRIES} tries and {time.monotonic() - begun:.0f} s")

    def _pull(self, which: int) -> None:
        # Into nowhere: skopeo checks what it gets by its digests.
        done = self._run("copy", "--src-tls-verify=false", f"{self._target}:t{which}", f"oci:{self._layout.directory.parent}/pulled:t")
        if done.returncode:
            self.tally.failures.append(f"skopeo pull: {done.stderr.decode(errors='replace')[-500:]}")
        self.tally.counts["pulls by skopeo"] += 1

    def _delete(self, which: int) -> None:
        for _ in range(_TRIES):
            done = self._run("delete", "--tls-verify=false", f"{self._target}:t{which}")
            if done.returncode == 0:
                del self.tally.live[_REPOSITORY, f"t{which}"]
                self.tally.counts["deletes by skopeo"] += 1
                return
            if not self._may_try_again("delete", done):
                return

    def _may_try_again(self, what: str, done: subprocess.CompletedProcess[bytes]) -> bool:
        said = done.stderr.decode(errors="replace")
        if not any(word in said for word in _AGAIN):
            self.tally.failures.append(f"skopeo {what}: {said[-500:]}")
            return False
        self.tally.counts["again: skopeo"] += 1
        return True

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self._tool.try_run(*arguments)
