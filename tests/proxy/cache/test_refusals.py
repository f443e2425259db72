"""What a client is told when an upstream fails."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from regd.errors import BlobUnknown
from regd.proxy.cache.refusals import refusal
from regd.proxy.remote.errors import Denied, Limited, NotThere, RemoteError, Unreachable, Wrong

URL = "https://upstream.example"


class RefusalTest(SynchronousTestCase):
    def refused(self, error: RemoteError) -> tuple[int, str]:
        told = refusal(error, URL, BlobUnknown(detail={"digest": "x"}))
        self.assertNotIn("secret", told.message)
        if told.status != 404:
            self.assertIn(URL, told.message)
        return told.status, told.code

    def test_each_failure_has_its_status(self) -> None:
        self.assertEqual(self.refused(NotThere("secret")), (404, "BLOB_UNKNOWN"))
        self.assertEqual(self.refused(Denied("secret")), (403, "DENIED"))
        self.assertEqual(self.refused(Limited("secret", 3)), (429, "TOOMANYREQUESTS"))
        self.assertEqual(self.refused(Unreachable("secret")), (502, "UNAVAILABLE"))
        self.assertEqual(self.refused(Unreachable("secret", late=True)), (504, "UNAVAILABLE"))
        self.assertEqual(self.refused(Wrong("secret")), (502, "UNAVAILABLE"))
        self.assertEqual(self.refused(RemoteError("secret")), (502, "UNAVAILABLE"))

    def test_retry_after_is_in_whole_seconds_and_not_too_soon(self) -> None:
        for given, told in ((0.2, "1"), (1.0, "1"), (1.1, "2"), (30, "30")):
            error = refusal(Limited("", given), URL, BlobUnknown())
            self.assertEqual(error.headers, {"Retry-After": told})
