"""Values that must not be told: each has a canary, and all that regd says is looked through for them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.case import E2ETestCase
from tests.e2e.certificates import Authority
from tests.e2e.daemon import Regd, clean_environment
from tests.e2e.process import free_port, wait_until
from tests.e2e.rawhttp import Client
from tests.e2e.test_passwords import entry

CANARIES = {name: f"canary-{name}-4fZ9" for name in ("secret", "right", "wrong", "token", "upstream", "hook", "trace", "cookie")}


class SecretsTest(E2ETestCase):
    def test_nobody_is_told(self) -> None:
        passwords = self.directory / "htpasswd"
        passwords.write_text(entry("alice", CANARIES["right"]), encoding="ascii")
        secret = self.directory / "secret"
        secret.write_text(CANARIES["secret"], encoding="ascii")
        debug, nobody = free_port(), free_port()
        server = Regd(
            self.directory / "server",
            environment={
                "REGISTRY_HTTP_SECRET_FILE": str(secret),
                "REGISTRY_LOG_LEVEL": "debug",
                "REGISTRY_HTTP_WORKERS": "2",
                "REGISTRY_HTTP_DEBUG": json.dumps({"addr": f"127.0.0.1:{debug}", "prometheus": {"enabled": True}}),
                "REGISTRY_AUTH": json.dumps({"htpasswd": {"realm": "here", "path": str(passwords)}}),
                "REGISTRY_ACCESS": json.dumps([{"who": "anonymous", "repositories": "**", "actions": ["pull"]}]),
                "REGISTRY_NOTIFICATIONS_ENDPOINTS": json.dumps(
                    [{"name": "hook", "url": f"http://user:{CANARIES['hook']}@127.0.0.1:{nobody}/", "threshold": 1, "backoff": "1s"}]
                ),
                "REGISTRY_PROXY_UPSTREAMS": json.dumps(
                    [{"prefix": "hub", "remoteurl": f"http://127.0.0.1:{nobody}", "username": "u", "password": CANARIES["upstream"]}]
                ),
            },
        )
        # What the configuration says by a variable stands in the file's place; the secret comes by its own file.
        text = server.configuration.read_text(encoding="utf-8")
        server.configuration.write_text("".join(line for line in text.splitlines(True) if "secret:" not in line), encoding="utf-8")
        self.run_for_all(server)

        said: list[str] = []
        for method, path in (
            ("GET", "/v2/"),
            ("GET", "/v2/_catalog"),
            ("GET", "/v2/hub/a/manifests/latest"),
            ("GET", "/auth/token?service=regd&scope=repository:a:pull"),
            ("GET", "/v2/a/manifests/latest"),
            ("POST", "/v2/a/blobs/uploads/"),
            ("GET", "/nothing%ff"),
        ):
            for authorization in (
                "",
                "Basic " + base64.b64encode(f"alice:{CANARIES['right']}".encode()).decode(),
                "Basic " + base64.b64encode(f"alice:{CANARIES['wrong']}".encode()).decode(),
                f"Basic {CANARIES['wrong']}",
                f"Bearer {CANARIES['token']}",
                f"Bearer e30.{CANARIES['token']}.e30",
                f"Digest {CANARIES['token']}",
            ):
                fields = {"Cookie": CANARIES["cookie"], **({"Authorization": authorization} if authorization else {})}
                answer = server.client.request(method, path, None, **fields)
                said.append(f"{answer.headers} {answer.body!r}")
        passwords.write_text(f"alice:{CANARIES['wrong']}\n", encoding="ascii")
        wait_until(lambda: "line 1 has no bcrypt hash" in server.program.output(), 20, "a refusal")
        said.append(self.check_config(server))
        passwords.write_text(entry("alice", CANARIES["right"]), encoding="ascii")
        operator = Client(debug)
        said += [operator.get(path).body.decode() for path in ("/metrics", "/debug/vars", "/debug/health")]
        pids = [server.program.pid, *server.program.children()]
        self.assertGreaterEqual(len(pids), 3)
        said += [Path(f"/proc/{pid}/cmdline").read_bytes().decode() + Path(f"/proc/{pid}/comm").read_text() for pid in pids]
        checked = self.check_config(server)
        said += [checked, server.program.output()]
        self.assertIn("http.secret: set", checked)
        everything = "\n".join(said)
        for name, canary in CANARIES.items():
            self.assertNotIn(canary, everything, name)
            self.assertNotIn(base64.b64encode(f"alice:{canary}".encode()).decode(), everything, name)
        self.assertIn("the password of 'alice' is wrong", everything)

    def check_config(self, server: Regd) -> str:
        """
        :return: What ``regd check-config`` says with the same variables.
        """
        environment = {**clean_environment(self.directory), **server.program.environment, "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [sys.executable, "-c", "from regd.cli import main; raise SystemExit(main())", "check-config", str(server.configuration)],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return done.stdout + done.stderr


class KeyTest(E2ETestCase):
    def test_a_key_that_does_not_fit(self) -> None:
        """What is said of it names the file, and not what is in it."""
        authority = Authority(self.directory / "authority")
        one, other = authority.issue("one"), authority.issue("other")
        server = Regd(
            self.directory / "server",
            environment={"REGISTRY_HTTP_TLS": json.dumps({"certificate": str(one.certfile), "key": str(other.keyfile)})},
        )
        self.addCleanup(server.stop)
        server.program.start()
        wait_until(lambda: not server.program.is_alive(), 20, "its end")
        log = server.program.output()
        self.assertIn("cannot start: http.tls.key: found ", log)
        self.assertIn("is not the key of the first certificate", log)
        self.assertNotIn("Traceback", log)
        self.assertNotIn("PRIVATE KEY", log)
