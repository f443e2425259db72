"""``WWW-Authenticate``, as it is written and as it is seen."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.remote.challenges import Challenge, parse_challenges

WORDS = st.text(string.ascii_letters + string.digits + "!#$%&'*+.^_`|~-", min_size=1, max_size=12)
#: What may stand between quotation marks (RFC 9110, section 5.6.4).
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30)
PIECES = ["Basic", "Bearer", " ", ",", "=", '"', "\\", "a", "realm", "\t", "@", "é", "x/y"]
BLANKS = st.sampled_from(["", " ", "\t", "  "])
COMMAS = st.sampled_from([", ", ",", " ,", " , , ", ",\t,"])


@st.composite
def parameters(draw: st.DrawFn) -> tuple[str, str, str]:
    """The name and the value of one, and how it is written."""
    name, value = draw(WORDS), draw(VALUES)
    if value and draw(st.booleans()) and all(char in string.ascii_letters + string.digits + "-._~" for char in value):
        shown = value
    else:
        escaped = draw(st.booleans())
        quoted = "".join(f"\\{char}" if char in '"\\' or (escaped and char in "a ") else char for char in value)
        shown = f'"{quoted}"'
    return name, value, f"{name}{draw(BLANKS)}={draw(BLANKS)}{shown}"


@st.composite
def challenges(draw: st.DrawFn) -> tuple[Challenge, str]:
    """One challenge, and how it is written."""
    scheme = draw(WORDS)
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return Challenge(scheme.lower()), scheme
    if kind == 1:
        value = draw(st.text(string.ascii_letters + string.digits + "-._~+/", min_size=1, max_size=20)) + "=" * draw(st.integers(0, 2))
        return Challenge(scheme.lower(), {}, value), f"{scheme} {value}"
    found = draw(st.lists(parameters(), min_size=1, max_size=5))
    read: dict[str, str] = {}
    for name, value, _ in found:
        read.setdefault(name.lower(), value)
    shown = draw(COMMAS).join(text for _, _, text in found)
    return Challenge(scheme.lower(), read), f"{scheme} {shown}"


class ChallengeTests(SynchronousTestCase):
    def test_docker_hub(self) -> None:
        line = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push"'
        wanted = {"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:library/alpine:pull,push"}
        self.assertEqual(parse_challenges([line]), [Challenge("bearer", wanted)])

    def test_as_it_is_seen(self) -> None:
        for line, wanted in (
            ("Basic", [Challenge("basic")]),
            (
                'Basic realm="a", Bearer realm="b",scope="c d"',
                [Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b", "scope": "c d"})],
            ),
            ("Negotiate, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
            ("Negotiate abc==, Basic realm=x", [Challenge("negotiate", {}, "abc=="), Challenge("basic", {"realm": "x"})]),
            # The example of RFC 9110, section 11.6.1.
            (
                'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
                [Challenge("basic", {"realm": "simple"}), Challenge("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'})],
            ),
            ("BEARER REALM=https://x/y?z=1,service=a", [Challenge("bearer", {"realm": "https://x/y?z=1", "service": "a"})]),
            ('Bearer realm="a" service="b"', [Challenge("bearer", {"realm": "a", "service": "b"})]),
            ('Bearer realm="a", realm="b"', [Challenge("bearer", {"realm": "a"})]),
            (" , ,Basic realm=a, ,", [Challenge("basic", {"realm": "a"})]),
            ('Bearer realm="never ends', [Challenge("bearer")]),
            ('Bearer realm="a", @@', [Challenge("bearer", {"realm": "a"})]),
            ("", []),
            ("=", []),
            ('"Basic"', []),
        ):
            self.assertEqual(parse_challenges([line]), wanted, line)

    def test_several_fields(self) -> None:
        self.assertEqual(
            parse_challenges(["Negotiate", 'Bearer realm="never', "Basic realm=a"]),
            [Challenge("negotiate"), Challenge("bearer"), Challenge("basic", {"realm": "a"})],
        )

    @given(st.lists(challenges(), max_size=4), COMMAS)
    def test_what_is_written_is_read(self, written: list[tuple[Challenge, str]], comma: str) -> None:
        self.assertEqual(parse_challenges([comma.join(text for _, text in written)]), [one for one, _ in written])

    @given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
    def test_anything_is_read(self, line: str) -> None:
        for one in parse_challenges([line]):
            self.assertTrue(one.scheme)
            self.assertFalse(one.token68 and one.parameters)

    def test_quickly(self) -> None:
        for line in ('Bearer realm="' + "\\a" * 30_000, "Basic " + "a=" * 30_000, "a," * 30_000, "Basic " + 'a="' * 20_000, " ," * 30_000):
            parse_challenges([line])
