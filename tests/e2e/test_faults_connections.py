"""Connections that break in the middle of an upload: what arrived stays, the status says how much, and the client goes on from there."""

import random
import re
import time
from contextlib import suppress
from itertools import product
from typing import ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.images import MIB, OCI_MANIFEST, noise
from tests.e2e.ledger import check_blob_files, manifest_of
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Answer, digest_of
from tests.e2e.wire import Wire

OCTETS = "application/octet-stream"
CONFIG = b"{}"


def span(answer: Answer) -> int:
    """
    :param answer: About an upload that does not hold exactly one byte: that looks like none.
    :return: How many bytes it holds.
    """
    last = int(answer.headers["range"].partition("-")[2])
    return last + 1 if last else 0


class BrokenConnectionTest(E2ETestCase):
    server: ClassVar[Regd]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = Regd(cls.directory / "server")
        cls.run_for_all(cls.server)

    def setUp(self) -> None:
        self.client = self.server.client
        self.name = f"cut/{self._testMethodName.removeprefix('test_')}"

    def send(self, method: str, target: str, data: bytes, length: int | None, *, reset: bool) -> None:
        """
        Send part of a request's body, and break the connection.

        :param method: The method.
        :param target: Where to.
        :param data: What is sent.
        :param length: How much was announced, or ``None`` to send chunks of 50,000 bytes, the last of which has no end.
        :param reset: Whether by RST, else by FIN.
        """
        lost = self.lost()
        wire = Wire(self.server.port)
        framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": length}
        wire.head(method, target, {"Content-Type": OCTETS, **framing})
        if length is None:
            for offset in range(0, len(data), 50_000):
                piece = data[offset : offset + 50_000]
                if len(piece) == 50_000:
                    wire.chunk(piece)
                else:
                    wire.socket.sendall(b"%x\r\n%b" % (len(piece) + 1, piece))
        else:
            wire.socket.sendall(data)
        if reset:
            wire.reset()
        else:
            wire.close()
        # Another worker may be asked next, before the one that had this connection has looked at it. It may never do so: a reset may also
        # come before anybody has seen a request.
        with suppress(TimeoutError):
            wait_until(lambda: self.lost() > lost, 2 if reset else 20, "the server to notice")

    def lost(self) -> int:
        """
        :return: How many requests the server has seen break off.
        """
        return len(re.findall('" 499 ', self.server.program.output()))

    def held(self, location: str, at_least: int) -> tuple[int, str]:
        """
        Wait until the server has noticed that the client has gone.

        :param location: An upload.
        :param at_least: How many bytes have to be in it.
        :return: How many are, and where it goes on.
        """
        answers: list[Answer] = []

        def settled() -> bool:
            # Somebody who writes holds the upload; one that nobody holds refuses a chunk out of order for its order only.
            answers.append(self.client.request("PATCH", location.partition("?")[0], b"x", Content_Range=f"{1 << 40}-{1 << 40}"))
            assert answers[-1].status == 416, answers[-1]
            # Twice the same: it may not have looked at what came yet.
            return all(b"another request" not in answer.body and span(answer) == span(answers[-1]) for answer in answers[-2:])

        wait_until(lambda: settled() and span(answers[-1]) >= at_least, 20, f"{at_least} bytes to be held, and by nobody")
        status = self.client.get(location)
        self.assertEqual((status.status, span(status)), (204, span(answers[-1])), status)
        return span(status), status.headers["location"]

    def finish(self, location: str, content: bytes, held: int) -> None:
        """
        :param location: An upload.
        :param content: All of the blob.
        :param held: How much of it the upload holds.
        """
        middle = held + (len(content) - held) // 2
        if middle > held:
            location = self.client.append(location, content[held:middle])
        self.assertEqual(self.client.commit(location, digest_of(content), content[middle:]).status, 201)
        self.assertEqual(self.client.get(f"/v2/{self.name}/blobs/{digest_of(content)}").body, content)

    def test_cut_off_and_resumed(self) -> None:
        content = noise(MIB)
        for method, chunked, reset, sent in product(("PATCH", "PUT"), (False, True), (False, True), (10, 320_010, MIB - 1)):
            with self.subTest(method=method, chunked=chunked, reset=reset, sent=sent):
                location = self.client.begin_upload(self.name)
                target = f"{location}&digest={digest_of(content)}" if method == "PUT" else location
                self.send(method, target, content[:sent], None if chunked else len(content), reset=reset)
                # A reset takes with it what was on its way.
                held, goes_on = self.held(location, 0 if reset else sent)
                self.assertLessEqual(held, sent)
                self.assertEqual(self.client.get(f"/v2/{self.name}/blobs/{digest_of(content)}").status, 404)
                self.finish(goes_on, content, held)
                self.assertEqual(
                    self.client.request("DELETE", f"/v2/{self.name}/blobs/{digest_of(content)}").status, 202
                )

    def test_all_bytes_but_not_the_end_of_the_body(self) -> None:
        # Nobody knows that this was all, the digest notwithstanding.
        content = noise(100_000)
        location = self.client.begin_upload(self.name)
        self.send("PUT", f"{location}&digest={digest_of(content)}", content, None, reset=False)
        held, goes_on = self.held(location, len(content))
        self.assertEqual(held, len(content))
        self.assertEqual(self.client.get(f"/v2/{self.name}/blobs/{digest_of(content)}").status, 404)
        self.assertEqual(self.client.commit(goes_on, digest_of(content)).status, 201)

    def test_cut_off_many_times(self) -> None:
        content = noise(2 * MIB)
        chance = random.Random(1)
        location = self.client.begin_upload(self.name)
        held = 0
        cuts = 0
        while held < len(content) - 200_000:
            rest = content[held:]
            sent = rest[: chance.randrange(1, 300_000)]
            chunked, reset = chance.random() < 0.5, chance.random() < 0.5
            self.send("PATCH", location, sent, None if chunked else len(rest), reset=reset)
            before = held
            held, location = self.held(location, held if reset else held + len(sent))
            self.assertLessEqual(held, before + len(sent))
            cuts += 1
        self.assertGreater(cuts, 5)
        self.finish(location, content, held)

    def test_what_arrived_is_what_was_sent(self) -> None:
        # Not only as many bytes: the same.
        content = noise(500_000)
        location = self.client.begin_upload(self.name)
        self.send("PATCH", location, content[:321_987], None, reset=True)
        held, goes_on = self.held(location, 0)
        self.assertEqual(self.client.commit(goes_on, digest_of(content[:held])).status, 201)
        check_blob_files(self.server.data)

    def test_a_push_in_one_request_that_is_cut_off(self) -> None:
        content = noise(MIB)
        for chunked, reset in product((False, True), (False, True)):
            target = f"/v2/{self.name}/blobs/uploads/?digest={digest_of(content)}"
            self.send("POST", target, content[:700_000], None if chunked else len(content), reset=reset)
        uploads = self.server.data / "docker/registry/v2/repositories" / self.name / "_uploads"
        # Nobody knows where they are, so nobody could go on with them.
        time.sleep(0.2)
        wait_until(lambda: not any(uploads.iterdir()), 20, "what is left of them to be removed")
        self.assertEqual(self.client.get(f"/v2/{self.name}/blobs/{digest_of(content)}").status, 404)
        self.client.push_blob(self.name, content)

    def test_a_manifest_that_is_cut_off(self) -> None:
        layer = noise(100)
        for blob in (CONFIG, layer):
            self.client.push_blob(self.name, blob)
        manifest = manifest_of(CONFIG, layer)
        for chunked, reset in product((False, True), (False, True)):
            self.send("PUT", f"/v2/{self.name}/manifests/latest", manifest[:-1], None if chunked else len(manifest), reset=reset)
        self.assertEqual(self.client.get("/v2/").status, 200)
        time.sleep(0.1)
        self.assertEqual(self.client.get(f"/v2/{self.name}/manifests/latest").status, 404)
        self.client.push_manifest(self.name, "latest", OCI_MANIFEST, manifest)

    def test_a_chunk_that_is_not_one(self) -> None:
        location = self.client.begin_upload(self.name)
        wire = Wire(self.server.port)
        wire.head("PATCH", location, {"Content-Type": OCTETS, "Transfer-Encoding": "chunked"})
        wire.chunk(b"0123456789")
        time.sleep(0.1)
        wire.socket.sendall(b"not a length\r\n")
        answer = wire.answer("PATCH")
        self.assertEqual((answer.status, answer.codes()), (400, ["BAD_REQUEST"]))
        wire.close()
        held, goes_on = self.held(location, 10)
        self.assertEqual(held, 10)
        self.assertEqual(self.client.commit(goes_on, digest_of(b"0123456789")).status, 201)

    def test_nothing_of_it_is_a_fault(self) -> None:
        said = self.server.program.output()
        self.assertFalse("Traceback" in said or "Unhandled" in said)
        location = self.client.begin_upload(self.name)
        self.send("PATCH", location, b"x" * 10, 100, reset=False)
        self.held(location, 10)
        # As nginx has it.
        wait_until(lambda: any(" 499 " in line for line in self.server.program.output().splitlines() if self.name in line), 10, "a 499")
