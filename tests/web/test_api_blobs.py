"""Blobs over HTTP, as tables: whole, in ranges, conditional, deleted."""

from __future__ import annotations

import re

from tests.web.support import ApiCase, Row, digest_of

CONTENT = b"0123456789"
SHA256 = digest_of(CONTENT)
SHA512 = digest_of(CONTENT, "sha512")
ABSENT = "sha256:" + "0" * 64
BLOB = f"/v2/a/b/blobs/{SHA256}"
ETAG = f'"{SHA256}"'


class BlobCase(ApiCase):
    def setUp(self) -> None:
        super().setUp()
        self.push_blob("a/b", CONTENT)


class GetTests(BlobCase):
    def test_whole(self) -> None:
        want = {
            "Content-Type": "application/octet-stream",
            "Content-Length": "10",
            "Docker-Content-Digest": SHA256,
            "ETag": ETAG,
            "Cache-Control": "max-age=31536000",
            "Accept-Ranges": "bytes",
            "Content-Range": None,
        }
        self.table([Row("GET", BLOB, 200, CONTENT, want), Row("HEAD", BLOB, 200, b"", want)])

    def test_sha512(self) -> None:
        self.push_blob("a", CONTENT, "sha512")
        want = {"Docker-Content-Digest": SHA512, "ETag": f'"{SHA512}"', "Content-Length": "10"}
        self.table([Row("GET", f"/v2/a/blobs/{SHA512}", 200, CONTENT, want), Row("HEAD", f"/v2/a/blobs/{SHA512}", 200, b"", want)])

    def test_empty(self) -> None:
        for algorithm in ("sha256", "sha512"):
            digest = self.push_blob("a", b"", algorithm)
            self.table(
                [
                    Row("GET", f"/v2/a/blobs/{digest}", 200, b"", {"Content-Length": "0"}),
                    Row("HEAD", f"/v2/a/blobs/{digest}", 200, b"", {"Content-Length": "0"}),
                    Row("GET", f"/v2/a/blobs/{digest}", 416, "RANGE_INVALID", {"Content-Range": "bytes */0"}, [("Range", "bytes=0-")]),
                ]
            )

    def test_unknown(self) -> None:
        self.table(
            [
                Row("GET", f"/v2/a/b/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
                Row("HEAD", f"/v2/a/b/blobs/{ABSENT}", 404, want={"Content-Type": "application/json"}),
                Row("GET", f"/v2/a/b/blobs/{SHA512}", 404, "BLOB_UNKNOWN"),
                # In the storage, but not in this repository.
                Row("GET", f"/v2/a/blobs/{SHA256}", 404, "BLOB_UNKNOWN"),
                Row("GET", f"/v2/a/b/c/blobs/{SHA256}", 404, "BLOB_UNKNOWN"),
                # Whatever is asked of what is not there.
                Row("GET", f"/v2/a/b/blobs/{ABSENT}", 404, "BLOB_UNKNOWN", headers=[("Range", "bytes=0-1")]),
                Row("GET", f"/v2/a/b/blobs/{ABSENT}", 404, "BLOB_UNKNOWN", headers=[("If-None-Match", "*")]),
                Row("GET", f"/v2/a/b/blobs/{ABSENT}", 404, "BLOB_UNKNOWN", headers=[("If-None-Match", f'"{ABSENT}"')]),
            ]
        )
        detail = self.refused(self.ask("GET", f"/v2/a/b/blobs/{ABSENT}"), 404, "BLOB_UNKNOWN")["detail"]
        self.assertEqual(detail, {"digest": ABSENT})

    def test_large(self) -> None:
        """More than is sent in one piece."""
        content = bytes(range(256)) * 4096
        digest = self.push_blob("a", content)
        self.table(
            [
                Row("GET", f"/v2/a/blobs/{digest}", 200, content, {"Content-Length": "1048576"}),
                Row("GET", f"/v2/a/blobs/{digest}", 206, content[100_000:500_000], headers=[("Range", "bytes=100000-499999")]),
            ]
        )
        self.assertIn(" 200 1048576 ", self.access.getvalue())
        self.assertIn(" 206 400000 ", self.access.getvalue())


class ConditionalTests(BlobCase):
    def test_if_none_match(self) -> None:
        """RFC 9110, section 13.1.2."""
        kept: dict[str, str | None] = {"ETag": ETAG, "Docker-Content-Digest": SHA256, "Cache-Control": "max-age=31536000"}
        kept |= {"Content-Length": None, "Content-Type": None}
        for value in (ETAG, f"W/{ETAG}", "*", f'"x", {ETAG}', f'W/"x",W/{ETAG}', SHA256):
            for method in ("GET", "HEAD"):
                self.table([Row(method, BLOB, 304, b"", kept, [("If-None-Match", value)])])
        others: list[str | bytes] = ['"x"', f'"{ABSENT}"', "", '"', "W/x", b"\xff"]
        self.table(Row("GET", BLOB, 200, CONTENT, headers=[("If-None-Match", other)]) for other in others)

    def test_if_none_match_comes_before_range(self) -> None:
        self.table([Row("GET", BLOB, 304, b"", headers=[("If-None-Match", ETAG), ("Range", "bytes=99-")])])

    def test_if_range(self) -> None:
        """RFC 9110, section 13.1.5: a strong comparison; else the whole."""
        wanted = ("Range", "bytes=2-3")
        self.table([Row("GET", BLOB, 206, b"23", headers=[wanted, ("If-Range", ETAG)])])
        for value in ('"x"', f"W/{ETAG}", "Wed, 21 Oct 2026 07:28:00 GMT", "", SHA256):
            self.table([Row("GET", BLOB, 200, CONTENT, {"Content-Range": None}, [wanted, ("If-Range", value)])])


class RangeTests(BlobCase):
    def test_one(self) -> None:
        """RFC 9110, section 14."""
        for header, start, end in (
            ("bytes=0-0", 0, 0),
            ("bytes=0-4", 0, 4),
            ("bytes=3-", 3, 9),
            ("bytes=9-", 9, 9),
            ("bytes=-3", 7, 9),
            ("bytes=-100", 0, 9),
            ("bytes=5-100", 5, 9),
            ("BYTES = 0-4", 0, 4),
            ("bytes= 0-4 ,", 0, 4),
            ("bytes=0-4,20-", 0, 4),
            ("bytes=-0,1-2", 1, 2),
            ("bytes=0-99999999999999999999", 0, 9),
        ):
            want = {
                "Content-Range": f"bytes {start}-{end}/10",
                "Content-Length": str(end - start + 1),
                "Content-Type": "application/octet-stream",
                "ETag": ETAG,
                "Docker-Content-Digest": SHA256,
            }
            if len(header) > 25:
                # A number that no file has: what it means is clear, but such a header may be ignored as well.
                self.assertIn(self.ask("GET", BLOB, [("Range", header)]).status, {200, 206})
            else:
                self.table([Row("GET", BLOB, 206, CONTENT[start : end + 1], want, [("Range", header)])])

    def test_ignored(self) -> None:
        numbers = ["bytes=1", "bytes=4-1", "bytes=--1", "bytes=1-2-3", "bytes=-", "bytes=0-1;"]
        headers: list[str | bytes] = ["bytes=", "bytes", "bytes=x", *numbers, "items=0-1", "", b"\xff"]
        for header in headers:
            self.table([Row("GET", BLOB, 200, CONTENT, {"Content-Range": None}, [("Range", header)])])

    def test_too_many(self) -> None:
        self.table([Row("GET", BLOB, 200, CONTENT, headers=[("Range", "bytes=" + ",".join(["0-0"] * 17))])])

    def test_more_than_the_whole(self) -> None:
        self.table([Row("GET", BLOB, 200, CONTENT, headers=[("Range", "bytes=0-,0-,0-")])])

    def test_unsatisfiable(self) -> None:
        want = {"Content-Range": "bytes */10", "Accept-Ranges": "bytes", "Docker-Content-Digest": SHA256}
        for header in ("bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99-,10-11"):
            self.table([Row("GET", BLOB, 416, "RANGE_INVALID", want, [("Range", header)])])

    def test_head_has_no_ranges(self) -> None:
        """RFC 9110, section 14.2: Range is for GET only."""
        for header in ("bytes=0-1", "bytes=99-"):
            self.table([Row("HEAD", BLOB, 200, b"", {"Content-Length": "10", "Content-Range": None}, [("Range", header)])])

    def test_several(self) -> None:
        answer = self.ask("GET", BLOB, [("Range", "bytes=0-1,-2, 4-4")])
        self.assertEqual((answer.status, answer.get("Content-Range")), (206, None))
        found = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]{32})", answer["Content-Type"])
        assert found is not None
        boundary = found[1].encode()
        self.assertEqual(
            answer.body,
            b"--" + boundary + b"\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n"
            b"--" + boundary + b"\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n"
            b"--" + boundary + b"\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 4-4/10\r\n\r\n4\r\n"
            b"--" + boundary + b"--\r\n",
        )
        self.assertEqual(answer["Content-Length"], str(len(answer.body)))
        self.assertIn(f" 206 {len(answer.body)} ", self.access.getvalue())

    def test_several_large_ones(self) -> None:
        content = bytes(range(256)) * 1024
        digest = self.push_blob("a", content)
        answer = self.ask("GET", f"/v2/a/blobs/{digest}", [("Range", "bytes=0-99999,150000-249999")])
        self.assertEqual(answer.status, 206)
        parts = answer.body.split(b"\r\n--" + answer["Content-Type"].partition("=")[2].encode())
        self.assertEqual(len(parts), 3)
        self.assertTrue(parts[0].endswith(b"\r\n\r\n" + content[:100_000]))
        self.assertTrue(parts[1].endswith(b"\r\n\r\n" + content[150_000:250_000]))


class DeleteTests(BlobCase):
    def test_delete(self) -> None:
        self.push_blob("c", CONTENT)
        self.table(
            [
                Row("DELETE", BLOB, 202, b"", {"Content-Length": "0"}),
                Row("GET", BLOB, 404, "BLOB_UNKNOWN"),
                Row("DELETE", BLOB, 404, "BLOB_UNKNOWN"),
                Row("DELETE", f"/v2/a/b/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
                Row("DELETE", f"/v2/none/blobs/{SHA256}", 404, "BLOB_UNKNOWN"),
                # Of another repository it is still there.
                Row("GET", f"/v2/c/blobs/{SHA256}", 200, CONTENT),
            ]
        )
        self.push_blob("a/b", CONTENT)
        self.table([Row("GET", BLOB, 200, CONTENT)])
