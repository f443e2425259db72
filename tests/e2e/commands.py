"""Commands beside a server: ``regd`` and ``docker-registry`` on the file that the server was started with."""

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.daemon import ROOT, Server, clean_environment
from tests.e2e.process import SEARCH_PATH, need

__all__ = ["blob_file", "command", "eligible", "without_grace"]


def command(server: Server, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run a command on a server's configuration.

    :param program: ``regd`` or ``docker-registry``.
    :param arguments: Those that stand before the configuration.
    :return: The finished process.
    """
    need(*([] if program == "regd" else [program]))
    path = str(Path(sys.executable).with_name("regd")) if program == "regd" else program
    environment = clean_environment(server.directory) | {"PATH": SEARCH_PATH, "PYTHONPATH": str(ROOT), "OTEL_TRACES_EXPORTER": "none"}
    return subprocess.run(
        [path, *arguments, str(server.configuration)], env=environment, capture_output=True, encoding="utf-8", check=False, timeout=120
    )


def without_grace(server: Server) -> None:
    """
    Have garbage be garbage at once, in a file that ``docker-registry`` takes as well, since it passes over what it does not know.

    :param server: Not yet started.
    """
    text = server.configuration.read_text(encoding="utf-8")
    changed = text.replace("  maintenance:\n", "  maintenance:\n    garbagecollect:\n      grace: 0s\n")
    assert changed != text
    server.configuration.write_text(changed, encoding="utf-8")


def eligible(printed: str) -> set[str]:
    """
    :param printed: By ``garbage-collect``.
    :return: What it says that can go: blobs, and manifests.
    """
    return set(re.findall(r"^(?:blob|manifest) eligible for deletion: \S+$", printed, re.MULTILINE))


def blob_file(data: Path, digest: str) -> Path:
    """
    :param data: The root directory.
    :param digest: Of a blob.
    :return: The file with its bytes.
    """
    algorithm, _, encoded = digest.partition(":")
    return data / "docker" / "registry" / "v2" / "blobs" / algorithm / encoded[:2] / encoded / "data"
