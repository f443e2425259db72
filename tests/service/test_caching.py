"""A cache of other registries over HTTP: names, answers, refusals, and what becomes of it with another configuration and at the end."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from regd.config import CacheUpstream, ConfigError, parse
from regd.manifest import OCI_IMAGE, OCI_INDEX
from regd.names import Digest
from regd.proxy.cache import core
from regd.proxy.dialing import CannotUseTLS
from regd.proxy.remote import errors as remote
from regd.proxy.remote.errors import NotThere
from regd.proxy.remote.values import RemoteBlob
from regd.service.serving import Serving
from regd.storage.memory import MemoryDriver
from regd.telemetry.samples import Samples
from tests.proxy.cache.support import FakeRemote
from tests.web.support import MINIMAL, OCTETS, ApiCase, descriptor, digest_of, index

ANY = ("Accept", f"{OCI_IMAGE}, {OCI_INDEX}")

HUB = """
proxy:
  upstreams:
    - {prefix: docker.io, remoteurl: "https://registry-1.docker.io", username: me, password: hunter2}
    - {prefix: lab/tools, remoteurl: "http://registry.lab:5000", tagttl: 60s, stale: 1h}
"""

WHOLE = """
proxy: {remoteurl: "https://registry-1.docker.io"}
"""

IMAGE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": descriptor(b"{}", "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(b"layer", "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
).encode()


class Upstream(FakeRemote):
    """
    In the place of :class:`regd.proxy.remote.client.Remote`.

    :ivar ends: what became of its connections.
    """

    made: list[Upstream] = []

    def __init__(self, upstream: CacheUpstream, reactor: Any) -> None:
        super().__init__()
        self.upstream = upstream
        self.ends: list[str] = []
        self.blobs: dict[str, bytes] = {}
        if upstream.tls.cafile:
            raise CannotUseTLS(f"{upstream.tls.cafile}: no such file")
        type(self).made.append(self)

    async def blob_size(self, name: str, digest: Digest) -> int | None:
        await self._listen("HEAD", name, str(digest))
        if digest not in self.blobs:
            raise NotThere("404")
        return len(self.blobs[digest])

    async def blob(self, name: str, digest: Digest, start: int = 0, end: int | None = None) -> RemoteBlob:
        raise NotThere("404")

    def close(self) -> None:
        self.ends.append("closed")

    def abort(self) -> None:
        self.ends.append("aborted")
        self.failure = remote.Unreachable("aborted")
        self.answer()

    def variables(self) -> dict[str, object]:
        return {"asked": len(self.asked)}


class CacheCase(ApiCase):
    config = MINIMAL + HUB

    def setUp(self) -> None:
        self.patch(Upstream, "made", [])
        self.patch(core, "Remote", Upstream)
        super().setUp()

    def build(self, config: str, driver: Any = None) -> None:
        super().build(config, driver)
        self.service.serving.start()

    @property
    def hub(self) -> Upstream:
        return next(one for one in reversed(Upstream.made) if "docker" in one.upstream.remote.authority)

    @property
    def lab(self) -> Upstream:
        return next(one for one in reversed(Upstream.made) if "lab" in one.upstream.remote.authority)

    def configure(self, text: str) -> None:
        self.service.serving.configure(parse(text.encode(), "config.yml", {}).config)

    def variables(self) -> Any:
        return self.service.serving.variables()["cache"]


class NamesTests(CacheCase):
    def test_a_pull(self) -> None:
        self.hub.put("latest", IMAGE)
        for method in ("HEAD", "GET"):
            answer = self.ask(method, "/v2/docker.io/library/alpine/manifests/latest", [ANY])
            self.assertEqual((answer.status, answer["Docker-Content-Digest"], answer["Content-Type"]), (200, digest_of(IMAGE), OCI_IMAGE))
            self.assertEqual((answer.get("OCI-Namespace"), answer["Content-Length"]), (None, str(len(IMAGE))))
        self.assertEqual(self.ask("GET", f"/v2/docker.io/library/alpine/manifests/{digest_of(IMAGE)}", [ANY]).body, IMAGE)
        again = self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest", [("If-None-Match", f'"{digest_of(IMAGE)}"')])
        self.assertEqual(again.status, 304)
        self.assertEqual(self.hub.methods(), ["GET latest"])

    def test_namespaces(self) -> None:
        self.hub.put("latest", IMAGE)
        for namespace in ("docker.io", "registry-1.docker.io", "Docker.IO", "registry-1.docker.io%3A443"):
            for name in ("library/alpine", "alpine", "docker.io/library/alpine"):
                answer = self.ask("GET", f"/v2/{name}/manifests/latest?ns={namespace}", [ANY])
                self.assertEqual((answer.status, answer["OCI-Namespace"]), (200, namespace.replace("%3A", ":")), (name, namespace))
        answer = self.ask("GET", "/v2/library/alpine/tags/list?ns=registry.lab:5000")
        self.assertEqual((answer.status, answer["OCI-Namespace"]), (404, "registry.lab:5000"))
        self.assertEqual(self.lab.asked, [("TAGS", "library/alpine", 1000, "")])
        self.assertEqual({asked[1] for asked in self.hub.asked}, {"library/alpine"})
        # Nobody knows that one; so this is a name of our own.
        answer = self.ask("GET", "/v2/library/alpine/manifests/latest?ns=ghcr.io", [ANY])
        self.assertEqual((answer.status, answer.get("OCI-Namespace")), (404, None))

    def test_a_cache_of_one(self) -> None:
        self.build(MINIMAL + WHOLE)
        self.hub.put("latest", IMAGE)
        for path in ("library/alpine/manifests/latest", "alpine/manifests/latest?ns=docker.io"):
            self.assertEqual(self.ask("GET", f"/v2/{path}", [ANY]).body, IMAGE)
        self.refused(self.ask("GET", "/v2/coreos/etcd/manifests/latest?ns=quay.io"), 404, "NAME_UNKNOWN")
        self.refused(self.ask("POST", "/v2/mine/blobs/uploads/", body=b""), 405, "UNSUPPORTED")

    def test_nothing_is_pushed_to_a_cache(self) -> None:
        upload = "00000000-0000-4000-8000-000000000000"
        for name, query in (("docker.io/library/alpine", ""), ("library/alpine", "?ns=docker.io"), ("lab/tools/x", "")):
            for method, path in (
                ("POST", "blobs/uploads/"),
                ("PATCH", f"blobs/uploads/{upload}"),
                ("PUT", f"blobs/uploads/{upload}"),
                ("DELETE", f"blobs/uploads/{upload}"),
                ("DELETE", f"blobs/{digest_of(b'layer')}"),
                ("PUT", "manifests/latest"),
                ("PUT", f"manifests/{digest_of(IMAGE)}"),
                ("DELETE", "manifests/latest"),
                ("DELETE", f"manifests/{digest_of(IMAGE)}"),
            ):
                body = None if method == "DELETE" else IMAGE
                answer = self.ask(method, f"/v2/{name}/{path}{query}", [OCTETS], body)
                message = self.refused(answer, 405, "UNSUPPORTED")["message"]
                self.assertEqual(answer["Allow"], "GET, HEAD")
                self.assertIn("is a cache of http", message)
                self.assertNotIn(b"hunter2", answer.body)
        self.assertEqual((self.hub.asked, self.lab.asked), ([], []))
        self.assertEqual(json.loads(self.ask("GET", "/v2/_catalog").body), {"repositories": []})

    def test_local_repositories_beside_it(self) -> None:
        digest, content = self.push_image("team/app", "1")
        self.assertEqual(self.ask("GET", "/v2/team/app/manifests/1", [ANY]).body, content)
        self.assertEqual(self.ask("DELETE", f"/v2/team/app/manifests/{digest}").status, 202)
        self.refused(self.ask("GET", "/v2/team/app/manifests/1", [ANY]), 404, "MANIFEST_UNKNOWN")
        self.assertEqual((self.hub.asked, self.lab.asked), ([], []))

    def test_lists(self) -> None:
        self.hub.lists["library/alpine"] = ["1", "2", "3"]
        self.hub.put("latest", IMAGE)
        first = self.ask("GET", "/v2/docker.io/library/alpine/tags/list?n=2")
        self.assertEqual(json.loads(first.body), {"name": "docker.io/library/alpine", "tags": ["1", "2"]})
        self.assertEqual(first["Link"], '</v2/docker.io/library/alpine/tags/list?last=2&n=2>; rel="next"')
        self.hub.index = index(descriptor(b"sig", OCI_IMAGE, artifactType="a/sig"))
        answer = self.ask("GET", f"/v2/docker.io/library/alpine/referrers/{digest_of(IMAGE)}?artifactType=a/sig")
        self.assertEqual([entry["digest"] for entry in json.loads(answer.body)["manifests"]], [digest_of(b"sig")])
        # What is here, and not what upstreams have.
        self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest")
        self.push_image("team/app", "1")
        self.assertEqual(json.loads(self.ask("GET", "/v2/_catalog").body)["repositories"], ["docker.io/library/alpine", "team/app"])

    def test_the_name_that_the_client_asked_by(self) -> None:
        self.hub.lists["library/alpine"] = ["1"]
        answer = self.ask("GET", "/v2/library/alpine/tags/list?ns=docker.io")
        self.assertEqual((answer.status, json.loads(answer.body)["tags"]), (200, ["1"]))

    def test_an_index_for_a_client_that_takes_none(self) -> None:
        """As ``registry:2`` has it; what it sends instead is fetched as well."""
        entry = {**descriptor(IMAGE, OCI_IMAGE), "platform": {"os": "linux", "architecture": "amd64"}}
        self.hub.put("latest", index(entry))
        self.hub.put(None, IMAGE)
        answer = self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest", [("Accept", OCI_IMAGE)])
        self.assertEqual((answer.status, answer.body), (200, IMAGE))


class FailureTests(CacheCase):
    def test_what_the_client_is_told(self) -> None:
        for failure, status, code in (
            (remote.Unreachable("refused"), 502, "UNAVAILABLE"),
            (remote.Unreachable("slow", late=True), 504, "UNAVAILABLE"),
            (remote.Wrong("digest"), 502, "UNAVAILABLE"),
            (remote.Denied("401 for me:hunter2"), 403, "DENIED"),
            (remote.Limited("429", 30.0), 429, "TOOMANYREQUESTS"),
            (remote.NotThere("404"), 404, "MANIFEST_UNKNOWN"),
        ):
            self.hub.failure = failure
            answer = self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest")
            message = self.refused(answer, status, code)["message"]
            self.assertEqual(answer.get("Retry-After"), "30" if status == 429 else None)
            if status != 404:
                self.assertIn("https://registry-1.docker.io", message)
            self.assertNotIn(b"hunter2", answer.body)
            self.assertEqual(self.ask("HEAD", "/v2/docker.io/library/alpine/manifests/latest").status, status)

    def test_the_daemon_starts_and_serves_what_it_has(self) -> None:
        self.hub.put("latest", IMAGE)
        self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest")
        self.push_image("team/app", "1")
        self.build(self.config, self.driver)
        self.hub.failure = self.lab.failure = remote.Unreachable("refused")
        self.assertEqual(self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest", [ANY]).body, IMAGE)
        self.assertEqual(self.ask("GET", "/v2/team/app/manifests/1", [ANY]).status, 200)
        self.assertEqual(self.ask("GET", "/v2/").status, 200)


class LifeTests(CacheCase):
    def test_another_configuration(self) -> None:
        self.hub.put("latest", IMAGE)
        self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest")
        first = self.hub

        def misses() -> float:
            samples = Samples()
            self.service.serving.collect(samples)
            return dict(samples.numbers("registry_proxy_misses_total"))["manifest",]

        self.assertEqual(misses(), 1)
        # Not a cache any more: what is here is served, and can be pushed to.
        self.configure(MINIMAL)
        self.assertEqual(first.ends, ["closed"])
        self.assertEqual(self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest", [ANY]).body, IMAGE)
        self.assertEqual(self.push_image("docker.io/library/mine", "1")[0], digest_of(self.image("docker.io/library/mine")))
        self.assertNotIn("cache", self.service.serving.variables())
        # And again.
        self.configure(self.config)
        self.assertIsNot(self.hub, first)
        self.assertEqual(misses(), 1)
        self.refused(self.ask("POST", "/v2/docker.io/library/mine/blobs/uploads/", body=b""), 405, "UNSUPPORTED")

    def test_requests_that_run(self) -> None:
        self.hub.put("latest", IMAGE)
        self.hub.hold()
        client, first = self.client(), self.hub
        client.send(b"GET /v2/docker.io/library/alpine/manifests/latest HTTP/1.1\r\nHost: x\r\n\r\n")
        self.configure(self.config)
        self.assertEqual(client.statuses, [])
        first.answer()
        client.settle()
        self.assertEqual(client.statuses, [200])

    def test_the_end(self) -> None:
        """Who waits for an upstream does not keep the daemon."""
        self.hub.hold()
        client = self.client()
        client.send(b"GET /v2/docker.io/library/alpine/manifests/latest HTTP/1.1\r\nHost: x\r\n\r\n")
        stopped: Deferred[None] = self.service.stopService()
        client.settle()
        for _ in range(4):
            self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.assertIn("aborted", self.hub.ends)

    def test_the_end_of_an_earlier_configuration(self) -> None:
        self.hub.hold()
        first, client = self.hub, self.client()
        client.send(b"GET /v2/docker.io/library/alpine/manifests/latest HTTP/1.1\r\nHost: x\r\n\r\n")
        self.configure(MINIMAL)
        stopped: Deferred[None] = self.service.stopService()
        client.settle()
        for _ in range(4):
            self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(first.ends, ["closed", "aborted"])

    def test_a_file_that_cannot_be_used(self) -> None:
        broken = MINIMAL + HUB.replace("username", "tls: {cafile: /none.pem}, username")
        self.assertRaises(ConfigError, self.configure, broken)
        self.hub.put("latest", IMAGE)
        self.assertEqual(self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest").status, 200)
        serving = Serving(parse(broken.encode(), "config.yml", {}).config, None, self.clock)  # type: ignore[arg-type]  # nothing is logged
        self.assertRaises(ConfigError, serving.start)

    def test_numbers(self) -> None:
        self.hub.put("latest", IMAGE)
        for _ in range(2):
            self.ask("GET", "/v2/docker.io/library/alpine/manifests/latest")
        found = self.variables()
        self.assertEqual((found["manifests"]["fetched"], found["manifests"]["hits"]), (1, 1))
        self.assertEqual(found["blobs"]["fetches"], 0)
        self.assertEqual(set(found["upstreams"]), {"docker.io https://registry-1.docker.io", "lab/tools http://registry.lab:5000"})
        self.assertNotIn("hunter2", json.dumps(found))
        self.build(MINIMAL, MemoryDriver())
        self.assertNotIn("cache", self.service.serving.variables())

    def test_numbers_of_several_workers(self) -> None:
        cache = {"manifests": {"hits": 2, "stale": 1}, "blobs": {"fetches": 1}, "upstreams": {"docker.io": {"resting": 3.0}}}

        class Workers:
            async def variables(self) -> list[dict[str, Any]]:
                return [{"pid": 1, "cache": cache}, {"pid": 2, "cache": cache}, {"pid": 3}]

        service: Any = self.service
        service.group = Workers()
        found = self.successResultOf(Deferred.fromCoroutine(service._variables()))
        self.assertEqual(found["cache"], {"manifests": {"hits": 4, "stale": 2}, "blobs": {"fetches": 2}})
