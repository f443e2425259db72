"""
The API as tables, request in and answer out: here what all of it has in common. Blobs, uploads, manifests and lists have modules of their
own. The statuses and codes are those of the distribution specification 1.1 and, where that is silent, of ``registry:2``.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tests.web.support import MINIMAL, OCTETS, ApiCase, Row, digest_of
from tests.web.wire import request_bytes

ABSENT = "sha256:" + "0" * 64
READS = "GET, HEAD"
READ_ONLY = "version: 0.1\nstorage: {inmemory: {}, delete: {enabled: true}, maintenance: {readonly: {enabled: true}}}\n"


class BaseTests(ApiCase):
    def test_base(self) -> None:
        json_type = {"Content-Type": "application/json", "Content-Length": "2", "Server": "regd"}
        self.table(
            [
                Row("GET", "/v2/", 200, b"{}", json_type),
                Row("HEAD", "/v2/", 200, b"", json_type),
                Row("GET", "/v2/?x=y", 200, b"{}"),
                Row("GET", "/v2", 301, b"", {"Location": "/v2/"}),
                Row("GET", "/v2?x=y", 301, b"", {"Location": "/v2/?x=y"}),
                Row("GET", "/", 200, b"", {"Cache-Control": "no-cache", "Content-Length": "0", "Content-Type": None}),
                Row("OPTIONS", "*", 200, b""),
            ]
        )

    def test_date(self) -> None:
        self.assertRegex(self.ask("GET", "/v2/")["Date"], r"^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$")

    def test_unroutable_paths(self) -> None:
        self.table(
            Row("GET", target, 404, "NOT_FOUND")
            for target in (
                "/v1/",
                "/v1/_ping",
                "/v2/x",
                "/v2/x/",
                "/v2//",
                "//v2/",
                "/%2Fv2/",
                "/v2/a/blobs/",
                "/v2/a/manifests",
                "/v2/a/manifests/",
                "/v2/a/tags",
                "/v2/a/tags/list/",
                "/v2/_catalog/",
                "/v3/",
                "/favicon.ico",
                "/debug/health",
                "/v2/a/b/c/d",
                "*",
            )
        )

    def test_paths_that_are_no_names(self) -> None:
        """Whatever stands in a path, it is refused by the grammar, or nobody's; never a file's."""
        self.table(
            [
                Row("GET", "/v2/A/tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/a..b/tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/../tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/..%2f..%2fetc/tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/a/../b/tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/a/%2e%2e/b/tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/a//b/tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/a%2F%2Fb/tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/a/_layers/tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/a%00/tags/list", 400, "NAME_INVALID"),
                Row("GET", "/v2/a%0a/tags/list", 404, "NOT_FOUND"),
                Row("GET", "/v2/%C3%A9/tags/list", 400, "NAME_INVALID"),
                Row("GET", f"/v2/{'a' * 256}/tags/list", 400, "NAME_INVALID"),
                Row("GET", f"/v2/{'a' * 255}/tags/list", 404, "NAME_UNKNOWN"),
                Row("GET", "/v2/%FF/tags/list", 400, "BAD_REQUEST"),
                Row("GET", "/%FF", 400, "BAD_REQUEST"),
                Row("GET", "/v2/a/blobs/sha256:xyz", 400, "DIGEST_INVALID"),
                Row("GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"),
                Row("GET", "/v2/a/blobs/x", 400, "DIGEST_INVALID"),
                Row("GET", f"/v2/a/blobs/{ABSENT.upper()}", 400, "DIGEST_INVALID"),
                Row("GET", "/v2/a/referrers/latest", 400, "DIGEST_INVALID"),
            ]
        )

    def test_names_like_endpoints(self) -> None:
        """A repository may be called as the API's own words are."""
        for name in ("tags", "blobs/uploads", "manifests/a", "a/tags/list", "referrers", "v2"):
            digest = self.push_blob(name, b"x")
            self.push_image(name, "list")
            self.table(
                [
                    Row("GET", f"/v2/{name}/blobs/{digest}", 200, b"x"),
                    Row("HEAD", f"/v2/{name}/manifests/list", 200),
                    Row("GET", f"/v2/{name}/tags/list", 200, b'{"name":"%s","tags":["list"]}\n' % name.encode()),
                ]
            )

    def test_encoded_paths(self) -> None:
        digest = self.push_blob("a/b", b"x")
        self.table(
            [
                Row("GET", f"/v2/a%2Fb/blobs/{digest}", 200, b"x"),
                Row("GET", f"/v2/%61/b/blobs/{digest.replace(':', '%3A')}", 200, b"x"),
                Row("GET", f"http://elsewhere.example/v2/a/b/blobs/{digest}", 200, b"x"),
            ]
        )

    def test_methods(self) -> None:
        blob, upload = f"/v2/a/blobs/{ABSENT}", "/v2/a/blobs/uploads/6330d93d-2e45-4235-b304-5a2206b959f7"
        rows = []
        for target, allowed in (
            ("/v2/", READS),
            ("/", READS),
            ("/v2/_catalog", READS),
            ("/v2/a/tags/list", READS),
            (f"/v2/a/referrers/{ABSENT}", READS),
            (blob, "DELETE, GET, HEAD"),
            ("/v2/a/manifests/x", "DELETE, GET, HEAD, PUT"),
            ("/v2/a/blobs/uploads/", "POST"),
            (upload, "DELETE, GET, HEAD, PATCH, PUT"),
        ):
            self.assertEqual(sorted(allowed.split(", ")), allowed.split(", "))
            rows += [Row("TRACE", target, 405, "UNSUPPORTED", {"Allow": allowed}), Row("OPTIONS", target, 200, b"", {"Allow": allowed})]
            if "POST" not in allowed:
                rows.append(Row("POST", target, 405, "UNSUPPORTED", {"Allow": allowed}, sent=b"x"))
        rows += [
            Row("BREW", "/v2/", 405, "UNSUPPORTED"),
            Row("get", "/v2/", 400, "BAD_REQUEST"),
            Row("OPTIONS", "/nowhere", 404, "NOT_FOUND"),
        ]
        self.table(rows)

    def test_head_has_the_headers_of_get(self) -> None:
        blob = self.push_blob("a", b"content")
        manifest, _ = self.push_image("a", "latest")
        for target in (
            "/",
            "/v2/",
            "/v2/_catalog",
            "/v2/a/tags/list",
            "/v2/a/manifests/latest",
            f"/v2/a/manifests/{manifest}",
            f"/v2/a/blobs/{blob}",
            f"/v2/a/blobs/{ABSENT}",
            "/v2/a/manifests/none",
            f"/v2/a/referrers/{manifest}",
            "/v2/none/tags/list",
            "/nowhere",
            "/v2/A/tags/list",
            "/v2/a/blobs/uploads/6330d93d-2e45-4235-b304-5a2206b959f7",
        ):
            get, head = self.ask("GET", target), self.ask("HEAD", target)
            self.assertEqual(head.body, b"")
            self.assertEqual(get.status, head.status)
            drop = {"Date", "X-Request-Id"}
            self.assertEqual([pair for pair in get.headers if pair[0] not in drop], [pair for pair in head.headers if pair[0] not in drop])

    def test_one_connection(self) -> None:
        """Good and bad requests alike, one after the other, each with the rest of its body read."""
        client = self.client()
        for method, target, body in (
            ("GET", "/v2/", None),
            ("PUT", "/v2/", b"x" * 1000),
            ("POST", "/nowhere", b"x" * 100_000),
            ("PUT", "/v2/a/manifests/x", b"{}"),
            ("POST", "/v2/a/blobs/uploads/", b""),
            ("PATCH", "/v2/a/blobs/uploads/6330d93d-2e45-4235-b304-5a2206b959f7", b"x" * 1000),
            ("GET", "/v2/%FF", None),
            ("GET", "/v2/", None),
        ):
            self.check(client.ask(method, target, [OCTETS], body), method)
        self.assertEqual(client.statuses, [200, 405, 404, 400, 202, 404, 400, 200])
        self.assertEqual(self.access.getvalue().count("\n"), 8)

    def test_no_http(self) -> None:
        client = self.client()
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        self.check(client.answers[0])
        self.assertEqual(client.statuses, [400])

    def test_access_log(self) -> None:
        self.ask("GET", "/v2/", [("User-Agent", 'docker/28 "x"'), ("Referer", "there")])
        client = self.client()
        client.send(request_bytes("PATCH", self.begin("a"), [OCTETS, ("Content-Length", "10")]) + b"x")
        client.leave()
        base, _, patch = self.access.getvalue().splitlines()
        self.assertRegex(base, r'^192\.0\.2\.7 - - \[.* \+0000\] "GET /v2/ HTTP/1\.1" 200 2 "there" "docker/28 \\"x\\"" \S+$')
        self.assertIn('" 499 0 "-" "-"', patch)


class PrefixTests(ApiCase):
    config = MINIMAL + "http: {prefix: /registry/}\n"

    def test_prefix(self) -> None:
        digest = digest_of(b"x")
        begun = self.ask("POST", "/registry/v2/a/blobs/uploads/", body=b"")
        location = begun["Location"].removeprefix("http://registry.example:5000")
        self.assertTrue(location.startswith("/registry/v2/a/blobs/uploads/"), location)
        done = self.ask("PUT", f"{location}?digest={digest}", [OCTETS], b"x")
        self.assertEqual(done["Location"], f"http://registry.example:5000/registry/v2/a/blobs/{digest}")
        self.table(
            [
                Row("GET", "/registry/v2/", 200, b"{}"),
                Row("GET", "/registry/v2", 301, b"", {"Location": "/registry/v2/"}),
                Row("GET", "/registry/", 200, b""),
                Row("GET", f"/registry/v2/a/blobs/{digest}", 200, b"x"),
                Row("GET", "/v2/", 404, "NOT_FOUND"),
                Row("GET", "/", 404, "NOT_FOUND"),
                Row("GET", "/registryv2/", 404, "NOT_FOUND"),
                Row("GET", "/registry//v2/", 404, "NOT_FOUND"),
            ]
        )


class LocationTests(ApiCase):
    """Where answers say that things are."""

    def location(self, *headers: tuple[str, str], peer: str = "192.0.2.7") -> str:
        """Scheme and host of the ``Location`` of an answer; empty when it is relative."""
        address = IPv6Address("TCP", peer, 1) if ":" in peer else IPv4Address("TCP", peer, 1)
        location = self.ask("POST", "/v2/a/blobs/uploads/", headers, b"", peer=address)["Location"]
        origin, found, _ = location.partition("/v2/a/blobs/uploads/")
        self.assertTrue(found, location)
        return origin

    def test_from_the_request(self) -> None:
        for host, origin in (
            ("registry.example", "http://registry.example"),
            ("registry.example:5000", "http://registry.example:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("a_b", "http://a_b"),
            # What cannot be part of a URL makes it relative, which is right whatever it is called.
            ("", ""),
            ("evil/path", ""),
            ("a b", ""),
            ("user@host", ""),
            ('"><script>', ""),
            ("a:b:c", ""),
            ("a,b", ""),
            ("é", ""),
        ):
            self.assertEqual(self.location(("Host", host)), origin, host)

    def test_no_host(self) -> None:
        client = self.client()
        client.send(b"POST /v2/a/blobs/uploads/ HTTP/1.0\r\n\r\n")
        self.assertTrue(client.answers[0]["Location"].startswith("/v2/a/blobs/uploads/"))

    def test_relative(self) -> None:
        self.build(MINIMAL + "http: {relativeurls: true}\n")
        self.assertEqual(self.location(), "")

    def test_configured(self) -> None:
        self.build(MINIMAL + "http: {host: 'https://hub.example', relativeurls: true}\nreverseproxy: {trusted: [192.0.2.0/24]}\n")
        self.assertEqual(self.location(("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", "other")), "https://hub.example")

    def test_untrusted_proxies(self) -> None:
        """Nothing that they say is believed, and what they do not pass on is not known: so the client is told nothing."""
        for header in (("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil"), ("Forwarded", "host=evil")):
            self.assertEqual(self.location(header), "")

    def test_trusted_proxies(self) -> None:
        self.build(MINIMAL + 'reverseproxy: {trusted: [192.0.2.0/24, "::1"]}\n')
        proto, host = ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "hub.example, inner")
        self.assertEqual(self.location(), "http://registry.example:5000")
        self.assertEqual(self.location(proto), "https://registry.example:5000")
        self.assertEqual(self.location(proto, host), "https://hub.example")
        self.assertEqual(self.location(proto, host, ("Forwarded", "proto=http;host=first.example, host=x")), "http://first.example")
        self.assertEqual(self.location(proto, host, peer="::1"), "https://hub.example")
        self.assertEqual(self.location(proto, host, peer="::ffff:192.0.2.9"), "https://hub.example")
        self.assertEqual(self.location(proto, host, peer="198.51.100.1"), "")
        self.assertEqual(self.location(("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Host", "a/b")), "http://registry.example:5000")

    def test_unix_sockets(self) -> None:
        """A peer without an address is not a trusted one."""
        answer = self.ask("POST", "/v2/a/blobs/uploads/", [("X-Forwarded-Proto", "https")], b"", peer=UNIXAddress(b""))
        self.assertTrue(answer["Location"].startswith("/v2/"))
        self.assertIn('- - - [', self.access.getvalue())


class HeadersTests(ApiCase):
    config = MINIMAL + "http: {headers: {X-Content-Type-Options: [nosniff], X-Two: [a, b], Server: [mine]}}\n"

    def test_configured_headers(self) -> None:
        for method, target, status in (
            ("GET", "/v2/", 200),
            ("GET", "/nowhere", 404),
            ("GET", "/v2/%FF", 400),
            ("PUT", "/v2/", 405),
            ("GET", "/v2", 301),
            ("HEAD", f"/v2/a/blobs/{ABSENT}", 404),
        ):
            answer = self.ask(method, target)
            self.assertEqual(answer.status, status)
            self.assertEqual(answer["X-Content-Type-Options"], "nosniff")
            self.assertEqual(answer.all("X-Two"), ["a", "b"])
            self.assertEqual(answer["Server"], "mine")


class ReadOnlyTests(ApiCase):
    def test_read_only(self) -> None:
        _, manifest = self.push_image("a", "latest")
        blob = self.push_blob("a", b"x")
        upload = self.begin("a")
        self.build(READ_ONLY, self.driver)
        refused = {"Allow": "GET, HEAD"}
        self.table(
            [
                Row("GET", "/v2/", 200, b"{}"),
                Row("GET", f"/v2/a/blobs/{blob}", 200, b"x"),
                Row("GET", "/v2/a/manifests/latest", 200, manifest),
                Row("GET", "/v2/a/tags/list", 200),
                Row("GET", "/v2/_catalog", 200),
                Row("GET", upload, 204),
                Row("POST", "/v2/a/blobs/uploads/", 405, "UNSUPPORTED", refused, sent=b""),
                Row("POST", f"/v2/b/blobs/uploads/?mount={blob}&from=a", 405, "UNSUPPORTED", refused, sent=b""),
                Row("PATCH", upload, 405, "UNSUPPORTED", refused, sent=b"x"),
                Row("PUT", f"{upload}?digest={digest_of(b'')}", 405, "UNSUPPORTED", refused, sent=b""),
                Row("DELETE", upload, 405, "UNSUPPORTED", refused),
                Row("PUT", "/v2/a/manifests/x", 405, "UNSUPPORTED", refused, sent=manifest),
                Row("DELETE", "/v2/a/manifests/latest", 405, "UNSUPPORTED", refused),
                Row("DELETE", f"/v2/a/blobs/{blob}", 405, "UNSUPPORTED", refused),
                Row("GET", upload, 204),
            ]
        )

    def test_before_the_body(self) -> None:
        self.build(READ_ONLY)
        client = self.client()
        client.send(request_bytes("PUT", "/v2/a/manifests/x", [("Expect", "100-continue"), ("Content-Length", "100")]))
        self.assertEqual(client.statuses, [405])


class DeleteDisabledTests(ApiCase):
    config = "version: 0.1\nstorage: inmemory\n"

    def test_delete_disabled(self) -> None:
        digest, _ = self.push_image("a", "latest")
        blob = self.push_blob("a", b"x")
        refused = {"Allow": "GET, HEAD"}
        self.table(
            [
                Row("DELETE", "/v2/a/manifests/latest", 405, "UNSUPPORTED"),
                Row("DELETE", f"/v2/a/manifests/{digest}", 405, "UNSUPPORTED"),
                Row("DELETE", f"/v2/a/blobs/{blob}", 405, "UNSUPPORTED", refused),
                Row("DELETE", f"/v2/a/blobs/{ABSENT}", 405, "UNSUPPORTED", refused),
                Row("DELETE", self.begin("a"), 204, b""),
                Row("GET", f"/v2/a/manifests/{digest}", 200),
                Row("GET", f"/v2/a/blobs/{blob}", 200, b"x"),
            ]
        )
