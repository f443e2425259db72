"""Uploads over HTTP, as tables: in one request, in chunks, resumed, out of order, cancelled; mounts."""

from __future__ import annotations

import json

from tests.web.support import MINIMAL, OCTETS, ApiCase, Row, digest_of, path_of
from tests.web.wire import Answer, chunked, request_bytes

CONTENT = b"0123456789"
DIGEST = digest_of(CONTENT)
OTHER = digest_of(b"other")
NONE = "/v2/a/blobs/uploads/6330d93d-2e45-4235-b304-5a2206b959f7"
ORIGIN = "http://registry.example:5000"


class UploadCase(ApiCase):
    def standing(self, answer: Answer, status: int, upload: str, size: int) -> None:
        """The answer says where the upload stands."""
        self.assertEqual(answer.status, status, answer)
        self.assertEqual(answer["Location"], ORIGIN + upload)
        self.assertEqual(answer["Range"], f"0-{max(size - 1, 0)}")
        self.assertEqual(answer["Docker-Upload-UUID"], upload.rpartition("/")[2])

    def append(self, upload: str, body: bytes, *headers: tuple[str, str]) -> Answer:
        return self.ask("PATCH", upload, [OCTETS, *headers], body)

    def put(self, upload: str, body: bytes, *headers: tuple[str, str], digest: str = DIGEST) -> Answer:
        return self.ask("PUT", f"{upload}?digest={digest}", [OCTETS, *headers], body)

    def created(self, answer: Answer, name: str = "a", digest: str = DIGEST, content: bytes = CONTENT) -> None:
        """The answer says that a blob is there, and it is."""
        self.assertEqual(answer.status, 201, answer)
        self.assertEqual(answer["Location"], f"{ORIGIN}/v2/{name}/blobs/{digest}")
        self.assertEqual(answer["Docker-Content-Digest"], digest)
        self.assertEqual(answer["Content-Length"], "0")
        self.table([Row("GET", f"/v2/{name}/blobs/{digest}", 200, content)])


class ChunkTests(UploadCase):
    def test_begin(self) -> None:
        for target in ("/v2/a/blobs/uploads/", "/v2/a/blobs/uploads"):
            answer = self.ask("POST", target, body=b"")
            self.assertRegex(answer["Docker-Upload-UUID"], r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
            self.standing(answer, 202, f"/v2/a/blobs/uploads/{answer['Docker-Upload-UUID']}", 0)
            self.assertEqual(answer["Content-Length"], "0")
            self.assertEqual(answer.body, b"")

    def test_chunks(self) -> None:
        upload = self.begin("a")
        self.standing(self.append(upload, b"0123"), 202, upload, 4)
        for method in ("GET", "HEAD"):
            status = self.ask(method, upload)
            self.standing(status, 204, upload, 4)
            self.assertEqual((status.body, status.get("Content-Length")), (b"", None))
        self.standing(self.append(upload, b"4567"), 202, upload, 8)
        self.created(self.put(upload, b"89"))
        self.table([Row("GET", upload, 404, "BLOB_UPLOAD_UNKNOWN")])

    def test_chunks_with_ranges(self) -> None:
        upload = self.begin("a")
        self.standing(self.append(upload, b"0123", ("Content-Range", "0-3")), 202, upload, 4)
        self.standing(self.append(upload, b"4567", ("Content-Range", "bytes 4-7/10")), 202, upload, 8)
        self.created(self.put(upload, b"89", ("Content-Range", "8-9")))

    def test_chunked_encoding(self) -> None:
        """As docker pushes."""
        encoding = ("Transfer-Encoding", "chunked")
        upload = self.begin("a")
        self.standing(self.append(upload, chunked(b"01", b"2345"), encoding), 202, upload, 6)
        self.standing(self.append(upload, chunked(), encoding), 202, upload, 6)
        self.created(self.put(upload, chunked(b"67", b"89"), encoding))

    def test_each_byte_by_itself(self) -> None:
        upload = self.begin("a")
        answer = self.ask("PATCH", upload, [OCTETS], CONTENT, size=1)
        self.standing(answer, 202, upload, 10)
        self.created(self.put(upload, b""))

    def test_post_and_put(self) -> None:
        self.created(self.put(self.begin("a"), CONTENT))
        self.created(self.put(self.begin("a/b"), CONTENT), "a/b")

    def test_without_a_content_type(self) -> None:
        upload = self.begin("a")
        self.assertEqual(self.ask("PATCH", upload, (), b"01234").status, 202)
        self.assertEqual(self.ask("PATCH", upload, [("Content-Type", "text/plain")], b"56789").status, 202)
        self.created(self.ask("PUT", f"{upload}?digest={DIGEST}"))

    def test_sha512(self) -> None:
        digest = digest_of(CONTENT, "sha512")
        upload = self.begin("a")
        self.append(upload, b"01234")
        self.created(self.put(upload, b"56789", digest=digest), digest=digest)
        self.created(self.put(self.begin("a"), CONTENT, digest=digest), digest=digest)
        begun = self.ask("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", body=b"")
        self.created(self.put(path_of(begun["Location"]), CONTENT, digest=digest), digest=digest)
        self.table([Row("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID", sent=b"")])

    def test_the_empty_blob(self) -> None:
        empty = digest_of(b"")
        self.created(self.put(self.begin("a"), b"", digest=empty), digest=empty, content=b"")

    def test_a_blob_that_is_there(self) -> None:
        self.created(self.put(self.begin("a"), CONTENT))
        self.created(self.put(self.begin("a"), CONTENT))


class OutOfOrderTests(UploadCase):
    """Specification 1.1, "Pushing a blob in chunks": 416, and where the upload stands."""

    def setUp(self) -> None:
        super().setUp()
        self.upload = self.begin("a")
        self.append(self.upload, b"01234")

    def refusal(self, answer: Answer, size: int = 5) -> None:
        self.standing(answer, 416, self.upload, size)
        self.refused(answer, 416, "RANGE_INVALID")
        self.standing(self.ask("GET", self.upload), 204, self.upload, size)

    def test_patch(self) -> None:
        for header in ("0-4", "4-8", "6-10", "9-13", "bytes 0-4/10"):
            self.refusal(self.append(self.upload, b"xxxxx", ("Content-Range", header)))
        self.created(self.put(self.upload, b"56789"))

    def test_put(self) -> None:
        for header in ("0-4", "4-8", "6-10"):
            self.refusal(self.put(self.upload, b"xxxxx", ("Content-Range", header)))
        self.created(self.put(self.upload, b"56789", ("Content-Range", "5-9")))

    def test_not_a_range(self) -> None:
        for header in ("x", "5-", "-5", "9-5", "5-9-", "bytes=*", ""):
            self.refusal(self.append(self.upload, b"xxxxx", ("Content-Range", header)))
            self.refusal(self.put(self.upload, b"xxxxx", ("Content-Range", header)))

    def test_a_range_of_another_length(self) -> None:
        for method, target in (("PATCH", self.upload), ("PUT", f"{self.upload}?digest={DIGEST}")):
            self.refused(self.ask(method, target, [OCTETS, ("Content-Range", "5-9")], b"x"), 400, "SIZE_INVALID")
            self.standing(self.ask("GET", self.upload), 204, self.upload, 5)

    def test_before_the_body(self) -> None:
        client = self.client()
        headers = [("Content-Range", "0-99999999"), ("Content-Length", "100000000"), ("Expect", "100-continue")]
        client.send(request_bytes("PATCH", self.upload, headers))
        self.assertEqual(client.statuses, [416])
        self.assertEqual(client.answers[0]["Connection"], "close")

    def test_a_second_writer(self) -> None:
        first = self.client()
        first.asked.append("PATCH")
        first.send(request_bytes("PATCH", self.upload, [OCTETS, ("Content-Length", "5")]) + b"56")
        finish = f"{self.upload}?digest={DIGEST}"
        for method, target, body in (("PATCH", self.upload, b"xx"), ("PUT", finish, b"xxxxx"), ("PUT", finish, b"")):
            second = self.client()
            second.asked.append(method)
            second.send(request_bytes(method, target, [OCTETS, ("Content-Length", str(len(body)))]) + body)
            # It might be the same client, whose connection broke.
            self.assertEqual(second.statuses, [])
            self.clock.pump([0.02] * 260)
            second.send(b"")
            self.refused(second.answers[0], 416, "RANGE_INVALID")
            self.assertEqual(second.answers[0]["Range"].partition("-")[0], "0")
        first.send(b"789")
        self.assertEqual(first.statuses, [202])
        self.created(self.put(self.upload, b""))

    def test_resumed_after_a_broken_connection(self) -> None:
        for headers, part in (([("Content-Length", "5")], b"56"), ([("Transfer-Encoding", "chunked")], b"1\r\n7\r\n2\r\n")):
            client = self.client()
            client.send(request_bytes("PATCH", self.upload, [OCTETS, *headers]) + part)
            client.leave()
        self.standing(self.ask("GET", self.upload), 204, self.upload, 8)
        self.standing(self.append(self.upload, b"8", ("Content-Range", "8-8")), 202, self.upload, 9)
        client = self.client()
        client.send(request_bytes("PUT", f"{self.upload}?digest={DIGEST}", [("Content-Length", "2")]) + b"9")
        client.leave()
        self.standing(self.ask("GET", self.upload), 204, self.upload, 10)
        self.created(self.put(self.upload, b""))


class FinishTests(UploadCase):
    def test_wrong_digest(self) -> None:
        """The upload is gone then, as it is with registry:2."""
        upload = self.begin("a")
        self.append(upload, b"01234")
        error = self.refused(self.put(upload, b"56789", digest=OTHER), 400, "DIGEST_INVALID")
        self.assertEqual(error["detail"], {"digest": OTHER, "received": DIGEST})
        self.table([Row("GET", upload, 404, "BLOB_UPLOAD_UNKNOWN"), Row("GET", f"/v2/a/blobs/{DIGEST}", 404, "BLOB_UNKNOWN")])

    def test_bad_digests(self) -> None:
        upload = self.begin("a")
        self.table(
            Row("PUT", upload + query, 400, "DIGEST_INVALID", sent=CONTENT)
            for query in ("", "?digest=", "?digest=x", "?digest=sha256:00", "?digest=md5:d41d8cd98f00b204e9800998ecf8427e", "?digest=%ff")
        )
        self.created(self.put(upload, CONTENT))

    def test_unknown_uploads(self) -> None:
        for target in (NONE, "/v2/a/blobs/uploads/x", "/v2/a/blobs/uploads/..", "/v2/a/blobs/uploads/" + "0" * 300):
            self.table(
                [
                    Row("GET", target, 404, "BLOB_UPLOAD_UNKNOWN"),
                    Row("HEAD", target, 404),
                    Row("PATCH", target, 404, "BLOB_UPLOAD_UNKNOWN", sent=b"x"),
                    Row("PUT", f"{target}?digest={DIGEST}", 404, "BLOB_UPLOAD_UNKNOWN", sent=b"x"),
                    Row("DELETE", target, 404, "BLOB_UPLOAD_UNKNOWN"),
                ]
            )

    def test_of_another_repository(self) -> None:
        upload = self.begin("a").replace("/v2/a/", "/v2/b/")
        self.table([Row("GET", upload, 404, "BLOB_UPLOAD_UNKNOWN"), Row("PATCH", upload, 404, "BLOB_UPLOAD_UNKNOWN", sent=b"x")])

    def test_cancel(self) -> None:
        upload = self.begin("a")
        self.append(upload, b"0")
        self.table(
            [
                Row("DELETE", upload, 204, b"", {"Docker-Upload-UUID": upload.rpartition("/")[2], "Content-Length": None}),
                Row("DELETE", upload, 404, "BLOB_UPLOAD_UNKNOWN"),
                Row("GET", upload, 404, "BLOB_UPLOAD_UNKNOWN"),
            ]
        )

    def test_cancelled_while_it_is_written(self) -> None:
        upload = self.begin("a")
        client = self.client()
        client.asked.append("PUT")
        client.send(request_bytes("PUT", f"{upload}?digest={DIGEST}", [OCTETS, ("Content-Length", "10")]) + b"01234")
        self.assertEqual(self.ask("DELETE", upload).status, 204)
        client.send(b"56789")
        self.refused(client.answers[0], 404, "BLOB_UPLOAD_UNKNOWN")


class SingleRequestTests(UploadCase):
    def post(self, query: str, body: bytes, *headers: tuple[str, str]) -> Answer:
        return self.ask("POST", f"/v2/a/blobs/uploads/{query}", [OCTETS, *headers], body)

    def test_single_request(self) -> None:
        self.created(self.post(f"?digest={DIGEST}", CONTENT))

    def test_chunked(self) -> None:
        self.created(self.post(f"?digest={DIGEST}", chunked(b"01234", b"56789"), ("Transfer-Encoding", "chunked")))

    def test_sha512(self) -> None:
        digest = digest_of(CONTENT, "sha512")
        self.created(self.post(f"?digest={digest}", CONTENT), digest=digest)

    def test_a_digest_and_no_body(self) -> None:
        """Then it begins an upload (specification 1.1, "Single POST": a registry may always answer so)."""
        answer = self.post(f"?digest={DIGEST}", b"")
        self.assertEqual(answer.status, 202)
        self.created(self.put(path_of(answer["Location"]), CONTENT))

    def test_wrong_digests(self) -> None:
        self.refused(self.post(f"?digest={OTHER}", CONTENT), 400, "DIGEST_INVALID")
        self.refused(self.post("?digest=x", CONTENT), 400, "DIGEST_INVALID")
        self.assertEqual(self.uploads(), [])

    def test_broken_off(self) -> None:
        client = self.client()
        client.send(request_bytes("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", [("Content-Length", "10")]) + b"01")
        client.leave()
        self.assertEqual(self.uploads(), [])

    def uploads(self) -> list[str]:
        """Those that nobody knows of, and that would lie about until they are purged."""
        root = self.driver._find("docker/registry/v2/repositories/a/_uploads")
        return list(root.entries) if root is not None else []


class MountTests(UploadCase):
    def setUp(self) -> None:
        super().setUp()
        self.push_blob("source/x", CONTENT)

    def mount(self, query: str, name: str = "a") -> Answer:
        return self.ask("POST", f"/v2/{name}/blobs/uploads/?{query}", body=b"")

    def test_from(self) -> None:
        self.created(self.mount(f"mount={DIGEST}&from=source/x"))
        self.created(self.mount(f"mount={DIGEST}&from=source%2Fx", "b/c"), "b/c")

    def test_from_itself(self) -> None:
        self.created(self.mount(f"mount={DIGEST}&from=source/x", "source/x"), "source/x")

    def test_from_anywhere(self) -> None:
        self.created(self.mount(f"mount={DIGEST}"))
        self.created(self.mount(f"mount={DIGEST}&from="), "a")

    def test_falling_back_to_an_upload(self) -> None:
        for query in (
            f"mount={OTHER}",
            f"mount={OTHER}&from=source/x",
            f"mount={DIGEST}&from=none",
            f"mount={DIGEST}&from=source",
            f"mount={DIGEST}&from=BAD",
            f"mount={DIGEST}&from=../x",
            "mount=bad&from=source/x",
            "mount=",
        ):
            answer = self.mount(query)
            self.standing(answer, 202, f"/v2/a/blobs/uploads/{answer['Docker-Upload-UUID']}", 0)
        self.table([Row("GET", f"/v2/a/blobs/{DIGEST}", 404, "BLOB_UNKNOWN")])

    def test_a_digest_and_a_body_besides(self) -> None:
        query = f"mount={OTHER}&from=none&digest={DIGEST}"
        self.created(self.ask("POST", f"/v2/a/blobs/uploads/?{query}", [OCTETS], CONTENT))


class StateTests(UploadCase):
    """With ``http.secret``, upload URLs say where the client is, and that they are ours."""

    config = MINIMAL + "http: {secret: hunter2}\n"

    def test_chunks(self) -> None:
        first = self.begin("a")
        self.assertIn("?_state=", first)
        answer = self.append(first, b"01234")
        self.assertEqual((answer.status, answer["Range"]), (202, "0-4"))
        second = path_of(answer["Location"])
        self.assertNotEqual(second, first)
        self.assertEqual(second.partition("?")[0], first.partition("?")[0])
        # A chunk that is sent again is refused, and does not double its bytes.
        again = self.append(first, b"01234")
        self.refused(again, 416, "RANGE_INVALID")
        self.assertEqual(path_of(again["Location"]), second)
        done = self.ask("PUT", f"{second}&digest={DIGEST}", [OCTETS], b"56789")
        self.created(done)

    def test_without_it(self) -> None:
        upload = self.begin("a").partition("?")[0]
        self.assertEqual(self.append(upload, b"01234").status, 202)
        self.created(self.put(upload, b"56789"))

    def test_forged(self) -> None:
        upload, _, query = self.begin("a").partition("?")
        other = self.begin("a").partition("?")[2]
        foreign = self.begin("b").partition("?")[2]
        for state in (other, foreign, query[:-4] + "AAAA", "_state=x", "_state=%ff", "_state=" + "A" * 100):
            self.table([Row("PATCH", f"{upload}?{state}", 404, "BLOB_UPLOAD_INVALID", sent=b"x")])
        self.assertEqual(self.append(f"{upload}?{query}", b"x").status, 202)

    def test_content_range_comes_first(self) -> None:
        first = self.begin("a")
        self.append(first, b"01234")
        answer = self.append(first, b"56789", ("Content-Range", "5-9"))
        self.assertEqual((answer.status, answer["Range"]), (202, "0-9"))


class RestartTests(UploadCase):
    def test_an_upload_survives(self) -> None:
        upload = self.begin("a")
        self.append(upload, b"01234")
        self.build(self.config, self.driver)
        self.standing(self.ask("GET", upload), 204, upload, 5)
        self.standing(self.append(upload, b"56789"), 202, upload, 10)
        self.build(self.config, self.driver)
        self.created(self.put(upload, b""))

    def test_its_errors_are_json(self) -> None:
        self.build(self.config, self.driver)
        self.assertIn("errors", json.loads(self.ask("GET", NONE).body))
