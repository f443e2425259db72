"""The routes as one expression: what it finds is what Klein finds."""

# Klein's decorators and app have no types that say more.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from klein import Klein
from twisted.trial.unittest import SynchronousTestCase
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from regd.errors import RegistryError
from regd.web.api import Api
from regd.web.debug import DebugApi
from regd.web.routes import Routes

METHODS = st.sampled_from([b"GET", b"HEAD", b"PUT", b"POST", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"get", b"BREW"])
DIGEST = "sha256:" + "0a" * 32
SEGMENTS = st.one_of(
    st.sampled_from(
        ["v2", "", "a", "a.b", "_catalog", "blobs", "uploads", "manifests", "tags", "list", "referrers", "latest", DIGEST]
    ),
    st.sampled_from(["A", ".", "..", "a" * 300, "sha512:" + "f" * 128, "sha1:00", "x:y", "debug", "health", "vars"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="%?/"), max_size=5),
)
#: Paths that a route takes, or nearly.
NEAR = st.tuples(
    st.lists(SEGMENTS, max_size=3),
    st.sampled_from(
        [
            ["blobs", DIGEST],
            ["blobs", "uploads"],
            ["blobs", "uploads", ""],
            ["blobs", "uploads", "x"],
            ["manifests", "latest"],
            ["manifests", DIGEST],
            ["tags", "list"],
            ["referrers", DIGEST],
        ]
    ),
    st.lists(SEGMENTS, max_size=1),
).map(lambda parts: ["v2", *parts[0], *parts[1], *parts[2]])
PATHS = st.one_of(NEAR, st.lists(SEGMENTS, max_size=7)).map(lambda segments: "/" + "/".join(segments))


def ask_klein(app: Any, method: bytes, path: str) -> tuple[str, dict[str, Any]] | None:
    """What Klein's resource would call, as it asks for it."""
    mapper = app.url_map.bind("localhost:5000", "", path_info=path, default_method=method.decode(), url_scheme="http")
    try:
        rule, arguments = mapper.match(return_rule=True)
    except (HTTPException, RegistryError):
        return None
    return rule.endpoint, arguments



class RoutesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.compiled = Routes(Api.app)
        self.operators = Routes(DebugApi.app)

    @settings(max_examples=1500)
    @given(METHODS, PATHS)
    @example(b"GET", "/")
    @example(b"GET", "/v2/")
    @example(b"GET", "/v2")
    @example(b"GET", "//v2/a/tags/list")
    @example(b"GET", "/v2//a/tags/list")
    @example(b"GET", "/v2/a//tags/list")
    @example(b"GET", "/v2/tags/list/tags/list")
    @example(b"GET", "/v2/tags/list")
    @example(b"GET", "/v2/a/blobs/uploads/manifests/latest")
    @example(b"POST", "/v2/a/blobs/uploads")
    @example(b"POST", "/v2/a/blobs/uploads//")
    @example(b"GET", "/v2/a/blobs/uploads/blobs/uploads/x")
    @example(b"PUT", "/v2/a/blobs/uploads/manifests/uploads/x")
    def test_as_klein(self, method: bytes, path: str) -> None:
        """
        What is found has the same endpoint and arguments, of the same types; what is not found is at most what Klein answers itself. So all
        that clients do is found, and nothing is answered otherwise than by Klein.
        """
        for routes, app in ((self.compiled, Api.app), (self.operators, DebugApi.app)):
            ours, klein = routes.find(method, path), ask_klein(app, method, path)
            # Klein drops slashes at the beginning, and does not mind small letters in methods; Root refuses both before it is asked.
            if path.startswith("//") or method == b"get":
                self.assertIsNone(ours)
            else:
                self.assertEqual(ours, klein)
            if ours is not None and klein is not None:
                for name, value in ours[1].items():
                    self.assertIs(type(value), type(klein[1][name]))

    def test_every_route(self) -> None:
        """There is a path for each route that is found without Klein."""
        paths = {"name": "a/b", "digest": DIGEST, "reference": "latest", "upload": "x"}
        for rule in Api.app.url_map.iter_rules():
            _, path = rule.build(paths, append_unknown=False)
            for method in rule.methods:
                found = self.compiled.find(method.encode(), path)
                self.assertIsNotNone(found, rule)
                assert found is not None
                self.assertEqual(found[0], rule.endpoint)

    def test_a_route_that_cannot_be_compiled(self) -> None:
        """It fails when the daemon starts, and not for the first client."""

        class Other:
            app: Any = Klein()

            @app.route("/<path:first>/x/<second>/y", methods=["GET"])
            def one(self, request: object, first: str, second: str) -> bytes:
                return b""

            @app.route("/<path:first>/", methods=["GET"])
            def two(self, request: object, first: str) -> bytes:
                return b""

        self.assertRaises(ValueError, Routes, Other().app)


class WerkzeugTests(SynchronousTestCase):
    """What is not public of werkzeug, and that the expression is made of."""

    def test_parts(self) -> None:
        """``Rule._parts``: the host, then fixed parts, then the one with the variables, whose groups are numbered."""
        (rule,) = (rule for rule in Api.app.url_map.iter_rules() if rule.endpoint == "get_blob")
        host, v2_slash, v2, variable = rule._parts
        self.assertEqual((host.static, v2_slash.content, v2.static, v2.content), (True, "", True, "v2"))
        self.assertEqual((variable.static, variable.final, variable.suffixed), (False, True, False))
        self.assertEqual(variable.content, r"(?P<__werkzeug_0>[^/].*?)/blobs/(?P<__werkzeug_1>[^/]+)\Z")

    def test_converters(self) -> None:
        """``Rule._converters``: by the names of the variables, in the order of their groups."""
        (rule,) = (rule for rule in Api.app.url_map.iter_rules() if rule.endpoint == "get_blob")
        self.assertEqual(list(rule._converters), ["name", "digest"])
        self.assertIsInstance(rule, Rule)
