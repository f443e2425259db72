"""What a realm answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.remote.access import Grant
from regd.proxy.remote.tokens import BadToken, Token, basic, parse_token

NOW = 1_800_000_000.0


def answer(**fields: object) -> bytes:
    return json.dumps(fields).encode()


class TokenTests(SynchronousTestCase):
    def life(self, **fields: object) -> float:
        found = parse_token(answer(token="abc", **fields), NOW)
        self.assertEqual(found.value, "abc")
        return found.until - NOW

    def test_names(self) -> None:
        self.assertEqual(parse_token(answer(access_token="abc"), NOW).value, "abc")
        self.assertEqual(parse_token(answer(token="", access_token="abc"), NOW).value, "abc")

    def test_life(self) -> None:
        issued = datetime.fromtimestamp(NOW - 100, UTC).isoformat()
        for fields, life in (
            ({}, 54),
            ({"expires_in": 300}, 270),
            ({"expires_in": 3600}, 3570),
            ({"expires_in": 1}, 0.9),
            ({"expires_in": 300, "issued_at": issued}, 180),
            ({"expires_in": 300, "issued_at": issued.replace("+00:00", "Z")}, 180),
            # A clock that is wrong.
            ({"expires_in": 60, "issued_at": issued}, 54),
            ({"expires_in": 60, "issued_at": "2999-01-01T00:00:00Z"}, 54),
            ({"expires_in": 60, "issued_at": "yesterday"}, 54),
            ({"expires_in": 60, "issued_at": 7}, 54),
            ({"expires_in": -1}, 54),
            ({"expires_in": 0}, 54),
            ({"expires_in": "300"}, 54),
            ({"expires_in": True}, 54),
            ({"expires_in": 1e400}, 54),
        ):
            self.assertAlmostEqual(self.life(**fields), life, 3, str(fields))

    def test_none(self) -> None:
        for content in (
            b"",
            b"abc",
            b"[]",
            b"{}",
            b"\xff",
            b"[" * 60_000,
            answer(token=""),
            answer(token=7),
            answer(token="a b"),
            answer(token="a\r\nX: y"),
            answer(token="é"),
            answer(token="x" * 40_000),
        ):
            error = self.assertRaises(BadToken, parse_token, content, NOW)
            self.assertTrue(str(error))

    @given(
        st.binary(max_size=60)
        | st.dictionaries(
            st.sampled_from(["token", "access_token", "expires_in", "issued_at"]), st.none() | st.text() | st.integers() | st.floats()
        ).map(lambda found: json.dumps(found).encode())
    )
    def test_anything(self, content: bytes) -> None:
        try:
            found = parse_token(content, NOW)
        except BadToken:
            return
        self.assertTrue(found.value.isascii() and found.value.isprintable() and " " not in found.value)
        self.assertTrue(NOW < found.until < NOW + 2**31)

    def test_basic(self) -> None:
        # The example of RFC 7617, section 2, and that of section 2.1.
        self.assertEqual(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        self.assertEqual(basic("test", "123\N{POUND SIGN}"), "Basic dGVzdDoxMjPCow==")

    def test_not_shown(self) -> None:
        self.assertNotIn("s3cret", repr(Token("s3cret", 1.0)) + repr(Grant("s3cret", fresh=True)))
