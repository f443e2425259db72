"""Whatever is asked by whomever: never a 500, and never more than a plain reading of the rules allows."""

from __future__ import annotations

import base64

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.web.test_access import USERS, AccessCase, allowed, login

NAMES = st.sampled_from(["public/a", "team/a", "hidden/a", "team/b", "public", "team/a/b", "TEAM/a", "team//a", "team/../hidden/a"])
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
SCHEMES = st.sampled_from(["Basic", "basic", "BASIC", "Bearer", "bearer", "Digest", "Negotiate", ""])
BYTES = st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode())
PAIRS = st.tuples(st.sampled_from([*USERS, "", "anonymous", "*", "@ci", "admin\\0"]), WORDS).map(
    lambda pair: base64.b64encode(f"{pair[0]}:{pair[1]}".encode()).decode()
)
TOKENS = st.tuples(BYTES, BYTES, BYTES).map(lambda parts: ".".join(part.rstrip("=") for part in parts))
NONE = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
CLAIMS = base64.urlsafe_b64encode(b'{"sub":"admin","iss":"regd","aud":"regd","exp":99999999999,"nbf":0}').decode().rstrip("=")
FORGED = st.sampled_from([f"{NONE}.{CLAIMS}.", f"{NONE}.{CLAIMS}", f"{NONE}.{CLAIMS}.e30", CLAIMS])
CREDENTIALS = st.one_of(WORDS, BYTES, PAIRS, TOKENS, FORGED)
AUTHORIZATIONS = st.tuples(SCHEMES, CREDENTIALS).map(lambda parts: " ".join(parts).strip())
REQUESTS = st.sampled_from(
    [
        ("GET", "/v2/{}/manifests/v1", "pull"),
        ("HEAD", "/v2/{}/manifests/v1", "pull"),
        ("GET", "/v2/{}/tags/list", "pull"),
        ("POST", "/v2/{}/blobs/uploads/", "push"),
        ("PUT", "/v2/{}/manifests/new", "push"),
        ("DELETE", "/v2/{}/manifests/v1", "delete"),
        ("GET", "/auth/token?scope=repository:{}:pull,push,delete", "token"),
        ("GET", "/v2/_catalog?n={}", "catalog"),
    ]
)


class FuzzTests(AccessCase):
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(REQUESTS, NAMES, AUTHORIZATIONS)
    def test_any_credentials(self, asked: tuple[str, str, str], name: str, authorization: str) -> None:
        """None of these is a password or a token that is good, so that nothing is done but what everybody may do."""
        method, target, action = asked
        fields = [("Authorization", authorization)] if authorization else []
        answer = self.ask(method, target.format(name), fields, b"{}" if method in {"PUT", "POST"} else None)
        self.assertLess(answer.status, 500, answer.body)
        self.assertNotIn(b"Traceback", answer.body)
        if answer.status < 300:
            self.assertEqual(authorization, "")
            self.assertTrue(action == "token" or (action == "pull" and allowed("", name, "pull")), (method, target, name))

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(["", *USERS]), REQUESTS, NAMES)
    def test_the_model(self, user: str, asked: tuple[str, str, str], name: str) -> None:
        method, target, action = asked
        if action in {"token", "catalog"}:
            return
        answer = self.by(user, method, target.format(name), b"{}" if method in {"PUT", "POST"} else None)
        self.assertLess(answer.status, 500, answer.body)
        if not allowed(user, name, action):
            self.assertGreaterEqual(answer.status, 300, (user, method, name))

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(["", "puller"]),
        st.lists(
            st.sampled_from(
                ["v2", "", ".", "..", "%2e%2e", "hidden", "a", "team", "public", "%2f", "manifests", "v1", "tags", "list", "blobs"]
            ),
            max_size=8,
        ),
    )
    def test_any_path(self, user: str, parts: list[str]) -> None:
        """No way of writing a path leads to what may not be seen."""
        answer = self.ask("GET", "/" + "/".join(parts), login(user))
        self.assertLess(answer.status, 500, answer.body)
        self.assertNotIn(b"hidden/a", answer.body if answer.status < 300 else b"")
        if answer.status < 300:
            self.assertNotIn("hidden", parts)
