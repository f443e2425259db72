"""The URLs that answers name."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from regd.names import Digest, RepositoryName
from regd.web.forwarded import valid_host
from regd.web.request import StreamingRequest
from regd.web.urls import Urls

NAME = RepositoryName("library/alpine")
DIGEST = Digest("sha256:" + "0" * 64)


class Asked:
    """What of a request matters to URLs."""

    def __init__(self, peer: IAddress, secure: bool, headers: dict[str, str]) -> None:
        self._peer = peer
        self._secure = secure
        self._headers = {name.lower(): value for name, value in headers.items()}

    def getHeader(self, name: str) -> str | None:
        return self._headers.get(name.lower())

    def isSecure(self) -> bool:
        return self._secure

    def getClientAddress(self) -> IAddress:
        return self._peer


def asked(
    host: str | None = "hub:5000", *, peer: str = "192.0.2.1", secure: bool = False, unix: bool = False, **headers: str
) -> StreamingRequest:
    found = {name.replace("_", "-"): value for name, value in headers.items()}
    if host is not None:
        found["Host"] = host
    address: Any = UNIXAddress(b"") if unix else IPv4Address("TCP", peer, 1)
    return cast("StreamingRequest", Asked(address, secure, found))


class UrlsTests(SynchronousTestCase):
    def test_places(self) -> None:
        urls = Urls()
        self.assertEqual(urls.blob(asked(), NAME, DIGEST), f"http://hub:5000/v2/library/alpine/blobs/{DIGEST}")
        self.assertEqual(urls.manifest(asked(), NAME, DIGEST), f"http://hub:5000/v2/library/alpine/manifests/{DIGEST}")
        self.assertEqual(urls.upload(asked(), NAME, "x", None), "http://hub:5000/v2/library/alpine/blobs/uploads/x")
        self.assertEqual(urls.upload(asked(), NAME, "x", "a=/&"), "http://hub:5000/v2/library/alpine/blobs/uploads/x?_state=a%3D%2F%26")

    def test_origin(self) -> None:
        everybody = Urls(trusts=lambda peer: True)
        for urls, request, origin in (
            (Urls(), asked(secure=True), "https://hub:5000/"),
            (Urls(), asked(None), "/"),
            (Urls(), asked("a b"), "/"),
            (Urls(relative=True), asked(), "/"),
            (Urls(host="https://x.example"), asked(), "https://x.example/"),
            (Urls(host="https://x.example", relative=True), asked(), "https://x.example/"),
            (Urls(prefix="/p/"), asked(), "http://hub:5000/p/"),
            (Urls(host="https://x.example", prefix="/p/"), asked(), "https://x.example/p/"),
            (Urls(), asked(X_Forwarded_Proto="https"), "/"),
            (Urls(), asked(Forwarded=""), "/"),
            (everybody, asked(X_Forwarded_Proto="https"), "https://hub:5000/"),
            (everybody, asked(X_Forwarded_Host="h"), "http://h/"),
            (everybody, asked(X_Forwarded_Host="h/p"), "http://hub:5000/"),
            (everybody, asked(secure=True, Forwarded="proto=http"), "http://hub:5000/"),
            (everybody, asked(unix=True, X_Forwarded_Proto="https"), "/"),
            (everybody, asked(unix=True), "http://hub:5000/"),
        ):
            self.assertEqual(urls.blob(request, NAME, DIGEST), f"{origin}v2/{NAME}/blobs/{DIGEST}")

    def test_trust_is_by_peer(self) -> None:
        urls = Urls(trusts=lambda peer: peer == "192.0.2.1")
        self.assertTrue(urls.blob(asked(X_Forwarded_Proto="https"), NAME, DIGEST).startswith("https://hub:5000/"))
        self.assertTrue(urls.blob(asked(peer="192.0.2.2", X_Forwarded_Proto="https"), NAME, DIGEST).startswith("/v2/"))

    def test_next_page(self) -> None:
        for urls, path, query, link in (
            (Urls(), "v2/_catalog", {"n": "5", "last": "a/b"}, '</v2/_catalog?last=a%2Fb&n=5>; rel="next"'),
            (Urls(prefix="/p/"), "v2/a/tags/list", {"last": "x"}, '</p/v2/a/tags/list?last=x>; rel="next"'),
            (Urls(host="https://h"), "v2/_catalog", {"last": "é>"}, '</v2/_catalog?last=%C3%A9%3E>; rel="next"'),
        ):
            self.assertEqual(urls.next_page(path, query), link)

    @given(st.text(max_size=30), st.text(max_size=30), st.booleans())
    def test_any_host(self, host: str, forwarded: str, trusted: bool) -> None:
        """Whatever is said, the URL is on a host that may stand in one, or on none."""
        urls = Urls(trusts=lambda peer: trusted)
        found = urls.blob(asked(host, X_Forwarded_Host=forwarded), NAME, DIGEST)
        origin, _, path = found.partition("/v2/")
        self.assertEqual(path, f"{NAME}/blobs/{DIGEST}")
        self.assertTrue(not origin or valid_host(origin.removeprefix("http://")))
