"""The URLs that answers name: ``Location`` and ``Link``, right for the client also when a proxy stands between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from twisted.internet.address import IPv4Address, IPv6Address

from regd.names import Digest, RepositoryName
from regd.web.forwarded import HEADERS, parse_forwarded, valid_host
from regd.web.request import StreamingRequest

__all__ = ["Urls"]


@dataclass(frozen=True, slots=True)
class Urls:
    """
    :ivar host: ``http.host``: an absolute URL that all others are below, or empty.
    :ivar prefix: ``http.prefix``; begins and ends with ``/``.
    :ivar relative: ``http.relativeurls``: leave out scheme and host.
    :ivar trusts: whether a peer's ``Forwarded`` and ``X-Forwarded-*`` are believed, by its IP address.
    """

    host: str = ""
    prefix: str = "/"
    relative: bool = False
    trusts: Callable[[str], bool] = lambda peer: False

    def blob(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> str:
        """Where a blob is."""
        return self._absolute(request, f"v2/{name}/blobs/{digest}")

    def manifest(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> str:
        """Where a manifest is."""
        return self._absolute(request, f"v2/{name}/manifests/{digest}")

    def upload(self, request: StreamingRequest, name: RepositoryName, upload: str, state: str | None) -> str:
        """Where an upload goes on."""
        query = "" if state is None else "?" + urlencode({"_state": state})
        return self._absolute(request, f"v2/{name}/blobs/uploads/{upload}{query}")

    def next_page(self, path: str, query: Mapping[str, str]) -> str:
        """The value of ``Link`` (RFC 8288) that leads to a listing's next page; ``path`` is below the prefix."""
        return f'<{self.prefix}{quote(path)}?{urlencode(sorted(query.items()))}>; rel="next"'

    def base(self, request: StreamingRequest) -> str:
        """
        What the client knows this registry by, up to the prefix and without a slash at its end: always a whole URL, because what is given
        to another program has to be one. Empty where a client does not say what it has asked.
        """
        if self.host:
            return f"{self.host}{self.prefix}".rstrip("/")
        host = request.getHeader("host") or ""
        plain = f"{'https' if request.isSecure() else 'http'}://{host}" if valid_host(host) else ""
        return f"{self._origin(request) or plain}{self.prefix}".rstrip("/")

    def _absolute(self, request: StreamingRequest, path: str) -> str:
        if self.host:
            # It is what the operator says, so it also beats relativeurls.
            return f"{self.host}{self.prefix}{path}"
        return f"{self._origin(request)}{self.prefix}{path}"

    def _origin(self, request: StreamingRequest) -> str:
        """
        Scheme and host as the client used them, or nothing, which makes the URL relative: a client that came by a proxy which is not
        trusted gets one that is right whatever the proxy's name is, and nothing that the proxy says is believed.
        """
        if self.relative:
            return ""
        scheme = "https" if request.isSecure() else "http"
        host = request.getHeader("host") or ""
        said = {name: value for name in HEADERS if (value := request.getHeader(name)) is not None}
        if said:
            if not self._is_trusted(request):
                return ""
            forwarded = parse_forwarded(said)
            scheme, host = forwarded.scheme or scheme, forwarded.host or host
        return f"{scheme}://{host}" if valid_host(host) else ""

    def _is_trusted(self, request: StreamingRequest) -> bool:
        peer = request.getClientAddress()
        return isinstance(peer, IPv4Address | IPv6Address) and self.trusts(peer.host)
