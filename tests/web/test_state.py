"""The ``_state`` of upload URLs: signed, tied to one upload, in ``registry:2``'s form."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.errors import BlobUploadInvalid
from regd.names import RepositoryName
from regd.registry.uploads import Upload
from regd.storage.layout import UploadId
from regd.web.state import StateSigner

NAME = RepositoryName("library/alpine")
ID = UploadId("6330d93d-2e45-4235-b304-5a2206b959f7")
STARTED = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


def upload(size: int = 0, name: RepositoryName = NAME, upload_id: UploadId = ID) -> Upload:
    return Upload(name, upload_id, size, STARTED)


class StateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.signer = StateSigner("hunter2")

    def signed(self, size: int = 0) -> str:
        state = self.signer.sign(upload(size))
        assert state is not None
        return state

    def test_there_and_back(self) -> None:
        for size in (0, 1, 10**12):
            self.assertEqual(self.signer.offset(self.signed(size), NAME, ID), size)

    def test_whose_it_is(self) -> None:
        alice = self.signer.sign(upload(5), "alice")
        self.assertEqual(self.signer.offset(alice, NAME, ID, "alice"), 5)
        for state, user in ((alice, "bob"), (alice, ""), (self.signed(5), "alice")):
            self.assertRaises(BlobUploadInvalid, self.signer.offset, state, NAME, ID, user)

    def test_form(self) -> None:
        """As ``registry:2`` writes it: base64url of HMAC-SHA256 and JSON."""
        raw = base64.urlsafe_b64decode(self.signed(7))
        self.assertEqual(raw[:32], hmac.digest(b"hunter2", raw[32:], "sha256"))
        self.assertEqual(
            json.loads(raw[32:]), {"Name": "library/alpine", "UUID": str(ID), "Offset": 7, "StartedAt": "2026-11-23T10:00:00Z"}
        )

    def test_without_a_secret(self) -> None:
        signer = StateSigner("")
        self.assertIsNone(signer.sign(upload()))
        self.assertIsNone(signer.offset(self.signed(), NAME, ID))
        self.assertIsNone(signer.offset("whatever", NAME, ID))

    def test_absent(self) -> None:
        self.assertIsNone(self.signer.offset(None, NAME, ID))

    def refused(self, state: str, name: RepositoryName = NAME, upload_id: UploadId = ID) -> None:
        error = self.assertRaises(BlobUploadInvalid, self.signer.offset, state, name, upload_id)
        self.assertIn("begin the upload again", error.message)

    def test_of_another_upload(self) -> None:
        self.refused(self.signed(), name=RepositoryName("library"))
        self.refused(self.signed(), upload_id=UploadId.new())

    def test_of_another_secret(self) -> None:
        state = StateSigner("other").sign(upload())
        assert state is not None
        self.refused(state)

    def test_signed_but_senseless(self) -> None:
        """What is ours by its signature may still be of a version to come."""
        offsets = [self.document(None), self.document("x"), self.document([])]
        for document in (b"", b"x", b"[]", b"{}", b"null", b'{"Name": 1}', b"\xff", b"[" * 100_000, *offsets):
            self.refused(base64.urlsafe_b64encode(hmac.digest(b"hunter2", document, "sha256") + document).decode())

    def document(self, offset: object) -> bytes:
        return json.dumps({"Name": NAME, "UUID": ID, "Offset": offset}).encode()

    @given(st.one_of(st.text(max_size=100), st.binary(max_size=100).map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
    @example("é")
    @example("=")
    @example("A")
    @example("\ud800")
    def test_garbage(self, state: str) -> None:
        self.refused(state)

    @given(st.integers(0, 10_000), st.integers(1, 255))
    def test_one_byte_changed(self, position: int, change: int) -> None:
        raw = bytearray(base64.urlsafe_b64decode(self.signed(3)))
        raw[position % len(raw)] ^= change
        self.refused(base64.urlsafe_b64encode(raw).decode())
