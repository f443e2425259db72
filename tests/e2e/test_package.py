"""
The Debian package, from a clean checkout to nothing left behind, on a clean
Debian: built, looked at by lintian, started by systemd, pushed to and pulled
from, upgraded while somebody pushes, removed and purged. And the container
image that is made of it, in place of ``registry:2``.
"""

import re
import shlex
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import ClassVar

import pytest

from tests.e2e.daemon import ROOT, Peer, clean_environment
from tests.e2e.engine import Engine
from tests.e2e.images import MIB, build_context
from tests.e2e.process import Program, free_port, need
from tests.e2e.rawhttp import Client
from tests.e2e.root import Root

SUITE = "bookworm"

# Installed before the package and with what it depends on, so that what is there before and after is the package's alone: systemd, and
# what debian/tests/lifecycle uses.
BEFORE = ("systemd", "systemd-sysv", "dbus", "curl", "procps")

# Runs debian/tests/lifecycle when the system is up, and ends.
UNIT = """\
[Unit]
After=basic.target
[Service]
Type=oneshot
Environment=REGD_DEB=/srv/regd.deb HOME=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/bin/sh -c '/srv/tests/lifecycle >/srv/result 2>&1; echo "status $?" >>/srv/result; systemctl --no-block poweroff'
TimeoutStartSec=500
"""


@pytest.mark.timeout(2400)
class PackageTest(unittest.TestCase):
    directory: ClassVar[Path]
    clean: ClassVar[Root]
    package: ClassVar[Path]
    lintian: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        need("git", "tar", "debootstrap", "systemd-nspawn", "dpkg-deb", "setpriv")
        temporary = tempfile.TemporaryDirectory(prefix="regd-")
        cls.addClassCleanup(temporary.cleanup)
        cls.directory = Path(temporary.name)
        cls.clean = Root(cls.directory / "clean")
        cls.clean.make(SUITE)
        building = cls.clean.copy(cls.directory / "building")
        building.install("make", "lintian")
        check_out(building.directory / "srv/regd")
        building.run("make", "deb", cwd="/srv/regd")
        (built,) = (building.directory / "srv/regd/dist").glob("regd_*.deb")
        cls.package = cls.directory / built.name
        shutil.copy(built, cls.package)
        cls.lintian = building.run("sh", "-c", "lintian --allow-root --fail-on none dist/*.deb", cwd="/srv/regd")
        shutil.rmtree(building.directory)
        cls.clean.install(*BEFORE, *dependencies(cls.package))

    def test_lintian(self) -> None:
        self.assertEqual(re.findall("(?m)^[EW]: .*", self.lintian), [])

    def test_life_under_systemd(self) -> None:
        root = self.clean.copy(self.directory / "booted")
        self.addCleanup(shutil.rmtree, root.directory)
        shutil.copy(self.package, root.directory / "srv/regd.deb")
        shutil.copytree(ROOT / "debian/tests", root.directory / "srv/tests")
        units = root.directory / "etc/systemd/system"
        (units / "lifecycle.service").write_text(UNIT, encoding="ascii")
        (units / "multi-user.target.wants").mkdir(exist_ok=True)
        (units / "multi-user.target.wants/lifecycle.service").symlink_to("../lifecycle.service")
        console = root.boot(600)
        result = root.directory / "srv/result"
        self.assertTrue(result.exists(), f"systemd did not come up:\n{console[-4000:]}")
        said = result.read_text(encoding="utf-8", errors="replace")
        self.assertTrue(said.endswith("lifecycle: all is well\nstatus 0\n"), said)

    def test_docker_and_the_image(self) -> None:
        engine = Engine(self.directory / "engine")
        self.addCleanup(engine.stop)
        engine.start()
        with self.subTest("without systemd: the unit's program as the unit's user"):
            self.check_the_program(engine)
        with self.subTest("the image"):
            self.check_the_image(engine)

    def check_the_program(self, engine: Engine) -> None:
        root = self.clean.copy(self.directory / "installed")
        self.addCleanup(shutil.rmtree, root.directory)
        shutil.copy(self.package, root.directory / "tmp")
        root.install(f"/tmp/{self.package.name}")
        self.assertEqual(root.run("dpkg", "--verify"), "")
        unit = (root.directory / "lib/systemd/system/regd.service").read_text(encoding="utf-8")
        command, user = (re.findall(f"(?m)^{key}=(.*)$", unit) for key in ("ExecStart", "User"))
        port = free_port()
        run_as = ["setpriv", f"--reuid={user[0]}", f"--regid={user[0]}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        program = Program(
            root.command(*run_as, *shlex.split(command[0])),
            self.directory / "log",
            clean_environment(Path("/")) | {"REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}"},
            self.directory,
        )
        self.addCleanup(program.stop)
        program.start()
        program.wait_ready(lambda: answers(port))
        # What autopkgtest runs where it has a machine of its own.
        path = f"{Path(engine.docker).parent}:{engine.environment['PATH']}"
        docker = {**engine.environment, "REGD_HOST": f"127.0.0.1:{port}", "PATH": path}
        done = subprocess.run([ROOT / "debian/tests/docker"], env=docker, capture_output=True, check=False, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        program.stop()
        owners = {path.stat().st_uid for path in (root.directory / "var/lib/regd").rglob("*")}
        self.assertEqual(owners, {int(root.run("id", "-u", "regd"))})
        root.run("dpkg", "--purge", "regd")
        self.assertFalse((root.directory / "var/lib/regd").exists())

    def check_the_image(self, engine: Engine) -> None:
        archive = self.directory / "clean.tar"
        # What Debian's slim image leaves out, too: the engine copies all of it for each line of the Dockerfile.
        without = ("./var/cache/apt/*", "./var/lib/apt/lists/*", "./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*")
        excluded = [f"--exclude={path}" for path in without]
        subprocess.run(["tar", "-C", str(self.clean.directory), *excluded, "-cf", str(archive), "."], check=True)
        engine.run("import", str(archive), "debian:12-slim")
        archive.unlink()
        context = self.directory / "context"
        check_out(context)
        (context / "dist").mkdir()
        shutil.copy(self.package, context / "dist")
        engine.run("build", "--network=host", "--quiet", "--tag", "regd", str(context))
        # Data that registry:2 has written, as root, and its configuration: what a compose file has mounted.
        peer = Peer(self.directory / "peer")
        self.addCleanup(peer.stop)
        peer.start()
        content = b"of registry:2"
        digest = peer.client.push_blob("old/one", content)
        peer.stop()
        port = free_port()
        configuration = self.directory / "mounted"
        configuration.mkdir()
        text = peer.configuration.read_text(encoding="utf-8")
        text = text.replace(str(peer.data), "/var/lib/registry").replace(f"127.0.0.1:{peer.port}", f"127.0.0.1:{port}")
        (configuration / "config.yml").write_text(text, encoding="utf-8")
        mounts = ("-v", f"{peer.data}:/var/lib/registry", "-v", f"{configuration}:/etc/registry/")
        name = engine.run("run", "--detach", "--network=host", *mounts, "regd", "serve", "/etc/registry/config.yml")
        self.addCleanup(engine.try_run, "rm", "--force", "--volumes", name)
        self.wait_for(engine, name, port)
        self.assertEqual(Client(port).get(f"/v2/old/one/blobs/{digest}").body, content)
        self.push_and_pull(engine, port)
        processes = engine.run("top", name, "-eo", "pid,uid,args").splitlines()[1:]
        self.assertEqual([line for line in processes if line.split()[1] == "0"], [], "the registry runs as root")
        said = engine.run("exec", name, "/bin/registry", "garbage-collect", "--dry-run", "/etc/registry/config.yml")
        self.assertIn("tests/image", said)
        self.assertIn("regd 0.", engine.run("run", "--rm", "--network=none", "regd", "--version"))
        engine.run("stop", "--time=20", name)
        self.assertNotEqual(engine.inspect_container(name, "{{.State.ExitCode}}"), "137", "it had to be killed")

        # Nothing but a name: the defaults, and settings by the environment, as another user.
        for user in ((), ("--user=1234:1234", "--tmpfs=/var/lib/registry:uid=1234")):
            port = free_port()
            name = engine.run("run", "--detach", "--network=host", f"--env=REGISTRY_HTTP_ADDR=127.0.0.1:{port}", *user, "regd")
            self.addCleanup(engine.try_run, "rm", "--force", "--volumes", name)
            self.wait_for(engine, name, port)
            Client(port).push_blob("new/one", content)
            engine.run("stop", "--time=20", name)

    def wait_for(self, engine: Engine, name: str, port: int) -> None:
        for _ in range(300):
            if answers(port):
                return
            if engine.inspect_container(name, "{{.State.Running}}") != "true":
                break
            subprocess.run(["sleep", "0.1"], check=True)
        self.fail(engine.try_run("logs", name).stderr)

    def push_and_pull(self, engine: Engine, port: int) -> None:
        image = f"127.0.0.1:{port}/tests/image:latest"
        context = self.directory / f"image-{port}"
        engine.run("build", "--quiet", "--tag", image, str(build_context(context, (MIB, 2 * MIB))))
        identity = engine.inspect(image, "{{.Id}}")
        engine.run("push", image)
        engine.run("rmi", image)
        engine.run("pull", image)
        self.assertEqual(engine.inspect(image, "{{.Id}}"), identity)
        engine.run("rmi", image)


def check_out(directory: Path) -> None:
    """
    :param directory: Where the project goes, as git has it or would, and nothing else of what lies here.
    """
    directory.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    present = b"\0".join(name for name in listed.split(b"\0") if name and (ROOT / name.decode()).exists())
    packed = subprocess.run(["tar", "--null", "--files-from=-", "-c"], input=present, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "--no-same-owner"], input=packed, cwd=directory, check=True)


def dependencies(package: Path) -> list[str]:
    """
    :param package: A package's file.
    :return: The names of the packages it depends on, of alternatives the first.
    """
    said = subprocess.run(["dpkg-deb", "--field", str(package), "Depends"], capture_output=True, check=True).stdout.decode()
    return [re.split(r"[\s(|:]", depended.strip(), maxsplit=1)[0] for depended in said.split(",")]


def answers(port: int) -> bool:
    """
    :return: Whether a registry does.
    """
    try:
        return Client(port).get("/v2/").status == 200
    except OSError:
        return False
