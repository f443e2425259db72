"""The errors of the protocol: each code with its status, and the envelope that a client gets."""

from __future__ import annotations

import inspect
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd import errors
from regd.errors import BlobUnknown, ManifestBlobUnknown, OutOfSpace, RegistryError, Unavailable, Unknown

#: Specification 1.1, "Error Codes", with the statuses of CNCF distribution; then what regd has besides.
STATUSES = {
    "BlobUnknown": ("BLOB_UNKNOWN", 404),
    "BlobUploadInvalid": ("BLOB_UPLOAD_INVALID", 404),
    "BlobUploadUnknown": ("BLOB_UPLOAD_UNKNOWN", 404),
    "Denied": ("DENIED", 403),
    "DigestInvalid": ("DIGEST_INVALID", 400),
    "ManifestBlobUnknown": ("MANIFEST_BLOB_UNKNOWN", 400),
    "ManifestInvalid": ("MANIFEST_INVALID", 400),
    "ManifestTooLarge": ("MANIFEST_INVALID", 413),
    "ManifestUnknown": ("MANIFEST_UNKNOWN", 404),
    "NameInvalid": ("NAME_INVALID", 400),
    "NameUnknown": ("NAME_UNKNOWN", 404),
    "PaginationNumberInvalid": ("PAGINATION_NUMBER_INVALID", 400),
    "RangeInvalid": ("RANGE_INVALID", 416),
    "SizeInvalid": ("SIZE_INVALID", 400),
    "TagInvalid": ("TAG_INVALID", 400),
    "Unavailable": ("UNAVAILABLE", 503),
    "Unknown": ("UNKNOWN", 500),
    "Unsupported": ("UNSUPPORTED", 405),
    "BadRequest": ("BAD_REQUEST", 400),
    "NotFound": ("NOT_FOUND", 404),
    "OutOfSpace": ("UNAVAILABLE", 507),
    "TooManyRequests": ("TOOMANYREQUESTS", 429),
    "TooManyTags": ("TAG_INVALID", 414),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


class ErrorsTest(SynchronousTestCase):
    def test_each_has_the_code_and_status_of_the_table(self) -> None:
        found = {
            name: (kind.code, kind.status)
            for name, kind in inspect.getmembers(errors, inspect.isclass)
            if issubclass(kind, RegistryError) and kind is not RegistryError
        }
        # A status that a later issue adds needs a line in the table above; none of these may change.
        self.assertEqual({name: found.get(name) for name in STATUSES}, STATUSES)
        self.assertEqual({name for name in found if name not in errors.__all__}, set())

    def test_each_has_a_message(self) -> None:
        for name in STATUSES:
            error = getattr(errors, name)()
            self.assertTrue(error.message, name)
            self.assertEqual(str(error), error.message)

    def test_envelope_without_detail(self) -> None:
        self.assertEqual(
            BlobUnknown().envelope(), {"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry"}]}
        )

    def test_envelope_lists_the_others_after_the_first(self) -> None:
        error = ManifestBlobUnknown("one", detail={"digest": "a"}, others=[ManifestBlobUnknown("two"), Unknown("three", detail=0)])
        self.assertEqual(
            error.envelope()["errors"],
            [
                {"code": "MANIFEST_BLOB_UNKNOWN", "message": "one", "detail": {"digest": "a"}},
                {"code": "MANIFEST_BLOB_UNKNOWN", "message": "two"},
                {"code": "UNKNOWN", "message": "three", "detail": 0},
            ],
        )

    def test_headers_are_empty_unless_given(self) -> None:
        self.assertEqual(dict(Unavailable().headers), {})
        self.assertEqual(dict(OutOfSpace(headers={"Retry-After": "5"}).headers), {"Retry-After": "5"})

    @given(st.text(), JSON)
    def test_envelope_is_json_that_keeps_message_and_detail(self, message: str, detail: object) -> None:
        document = json.loads(json.dumps(BlobUnknown(message, detail=detail).envelope()))
        (entry,) = document["errors"]
        self.assertEqual(entry["message"], message or BlobUnknown.default_message)
        self.assertEqual(entry.get("detail"), detail)
