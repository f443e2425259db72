"""
Tokens, and where they come from: the distribution project's token authentication specification.

A registry that answers 401 names a realm, to be asked with GET for a token that is good for one scope, such as
``repository:library/alpine:pull``. These requests are small and rare, and treq makes them.
"""

from __future__ import annotations

import base64
import json
import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

import treq
from OpenSSL.SSL import Error as SSLError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - it is not Python's, and the one that is raised
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.web.client import URI, Agent, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from regd.asked import current_id
from regd.config import TCPAddress
from regd.config.caching import CacheUpstream
from regd.proxy.coalesce import Coalesced
from regd.proxy.dialing import explain, is_late
from regd.proxy.remote.errand import AGENT, ending
from regd.proxy.remote.errors import Denied, RemoteError, Unreachable
from regd.proxy.remote.fields import parse_retry_after
from regd.proxy.remote.peers import Peers
from regd.proxy.remote.rest import Rest
from regd.proxy.remote.urls import URL, BadURL, parse_url, same_owner
from regd.proxy.upstream import upstream_span

__all__ = ["BadToken", "Realm", "Token", "Tokens", "basic", "parse_token"]

#: The largest answer of a realm that is taken, in bytes.
_LARGEST: Final = 64 * 1024

#: How many tokens are remembered: one for each repository, mostly.
_MOST: Final = 1000

#: What the specification says where the realm says nothing, in seconds.
_LIFE: Final = 60.0

#: A token is not used for the last seconds of its life, or the last tenth of a short one: it has to arrive, and clocks differ.
_MARGIN: Final = 30.0

_TOKEN: Final = re.compile(r"[!-~]{1,32768}")


@dataclass(frozen=True, slots=True)
class Realm:
    """
    What a challenge of scheme ``Bearer`` asks for.

    :ivar url: ``realm``, as it came.
    :ivar scope: scopes with spaces between.
    """

    url: str
    service: str
    scope: str


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """
    :ivar value: what ``Authorization`` has after ``Bearer``.
    :ivar until: when it is not to be used any more, in the reactor's seconds.
    """

    value: str
    until: float


class BadToken(ValueError):
    """An answer of a realm that has no token in it; ``str()`` says why, and repeats nothing of it."""


def basic(username: str, password: str) -> str:
    """``Authorization`` of scheme ``Basic`` (RFC 7617, section 2), in UTF-8."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def parse_token(content: bytes, now: float) -> Token:
    """
    Read the answer of a realm.

    :param now: seconds since the epoch.
    :raises BadToken: when there is none in it.
    """
    try:
        document = json.loads(content.decode("utf-8"))
    # RecursionError: a few kilobytes of "[" nest deeper than the parser goes.
    except (ValueError, RecursionError):
        raise BadToken("it is no JSON") from None
    if not isinstance(document, dict):
        raise BadToken("it is no JSON object")
    # The same thing by the name that OAuth 2.0 has for it; where there are both, they are to be equal.
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
        raise BadToken("there is no token in it")
    said = document.get("expires_in")
    life = float(said) if isinstance(said, int) and not isinstance(said, bool) and 0 < said < 2**31 else _LIFE
    issued = _seconds(document.get("issued_at"))
    if issued is not None and 0 < now - issued < life:
        # It is not new. What lies in the future, or is over, is rather the work of a clock that is wrong: then it counts from now.
        life -= now - issued
    return Token(value, now + life - min(_MARGIN, life / 10))


def _seconds(said: object) -> float | None:
    """A date of RFC 3339, in seconds since the epoch."""
    try:
        moment = datetime.fromisoformat(said if isinstance(said, str) else "")
        return moment.timestamp() if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


class Tokens:
    """
    The tokens of one remote registry, as long as they are good for anything; each is asked for once, however many want it.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    _log = Logger()

    def __init__(self, upstream: CacheUpstream, peers: Peers, reactor: Any) -> None:
        self._upstream = upstream
        self._peers = peers
        self._reactor = reactor
        self._rest = Rest(f"the realm for tokens of {upstream.remote}", reactor.seconds)
        self._found: OrderedDict[Realm, Token] = OrderedDict()
        self._asking: Coalesced[Realm, Token] = Coalesced()
        self._warned: set[str] = set()
        self._aborted = False

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._found)

    @property
    def asking(self) -> int:
        """How many are being asked for."""
        return len(self._asking)

    def at_hand(self, realm: Realm) -> str | None:
        """A token that is remembered."""
        found = self._found.get(realm)
        if found is None:
            return None
        if found.until <= self._reactor.seconds():
            del self._found[realm]
            return None
        self._found.move_to_end(realm)
        return found.value

    async def new(self, realm: Realm) -> str:
        """
        A token that has just been made.

        :raises Denied: when the realm has none for us.
        :raises Limited: when it wants to be asked later.
        :raises Unreachable: when it does not answer as it should.
        """
        token = await self._asking.join(realm, lambda: self._ask(realm))
        return token.value

    def drop(self, realm: Realm, value: str) -> None:
        """The registry does not take this token; another one, that somebody has got meanwhile, stays."""
        found = self._found.get(realm)
        if found is not None and found.value == value:
            del self._found[realm]

    def abort(self) -> None:
        """Ask for nothing any more."""
        self._aborted = True
        self._asking.cancel()

    async def _ask(self, realm: Realm) -> Token:
        if self._aborted:
            raise Unreachable("we are stopping")
        self._rest.check()
        try:
            url = parse_url(realm.url)
        except BadURL as error:
            raise Unreachable(f"{self._upstream.remote} asks for a token, but of its realm: {error}") from None
        token = await self._exchange(url, realm)
        self._rest.succeeded()
        self._found[realm] = token
        if len(self._found) > _MOST:
            self._found.popitem(last=False)
        return token

    async def _exchange(self, url: URL, realm: Realm) -> Token:
        query = [("service", realm.service)] if realm.service else []
        query += [("scope", scope) for scope in realm.scope.split()]
        text = url.text + ("&" if "?" in url.target else "?") + urlencode([*query, ("client_id", "regd")])
        headers = Headers({"User-Agent": [AGENT], "Accept": ["application/json"]})
        if self._may_have_credentials(url):
            headers.addRawHeader("Authorization", basic(self._upstream.username, self._upstream.password))
        request_id = current_id()
        if request_id:
            headers.addRawHeader("X-Request-Id", request_id)
        span = upstream_span(url.server, b"GET", url.target.encode("latin-1"))
        if self._peers.is_own(url):
            # As in an errand: others need not know.
            for name, value in span.fields().items():
                headers.addRawHeader(name, value)
        timeouts = self._upstream.timeouts
        endpoints = _Endpoints(self._peers.options(url), timeouts.connect, self._reactor)
        try:
            asking = Deferred.fromCoroutine(self._get(endpoints, text, headers)).addTimeout(timeouts.connect + timeouts.read, self._reactor)
            status, retry_after, content = await ending(span, asking)
            span.tell({"http.response.status_code": status})
            span.end()
        except _TooLarge:
            raise Unreachable(f"GET {url}: its answer is larger than {_LARGEST} bytes") from None
        except Exception as error:  # noqa: BLE001 - whatever treq, Agent and TLS raise
            if self._aborted:
                raise Unreachable("we are stopping") from None
            why, late = _explain(error)
            raise self._rest.failed(f"GET {url}: {why}", late=late) from None
        finally:
            endpoints.abort()
        return self._read(url, status, retry_after, content)

    async def _get(self, endpoints: _Endpoints, url: str, headers: Headers) -> tuple[int, str, bytes]:
        agent = Agent.usingEndpointFactory(self._reactor, endpoints)
        # A new client each time: nobody is to keep cookies. What may go where, was decided for this URL, so no redirects.
        response = await HTTPClient(agent).get(url, headers=headers, allow_redirects=False, unbuffered=True, reactor=self._reactor)
        content = bytearray()

        def take(data: bytes) -> None:
            content.extend(data)
            if len(content) > _LARGEST:
                raise _TooLarge

        await treq.collect(response, take)
        found = response.headers.getRawHeaders("Retry-After") or [""]
        return response.code, found[0], bytes(content)

    def _read(self, url: URL, status: int, said: str, content: bytes) -> Token:
        what = f"GET {url}: it answers {status}"
        now = self._reactor.seconds()
        retry_after = parse_retry_after(said, now)
        if status == 429 or (status == 503 and retry_after is not None):
            raise self._rest.limited(what, retry_after)
        if status in {401, 403}:
            raise Denied(f"{what}, so that there is no token for us")
        if status != 200:
            raise Unreachable(what, late=status == 504)
        try:
            return parse_token(content, now)
        except BadToken as error:
            raise Unreachable(f"{what}, but {error}") from None

    def _may_have_credentials(self, url: URL) -> bool:
        """Whether this realm is told user and password: over ``https``, and if it belongs to who runs the registry, or is configured."""
        upstream = self._upstream
        if not upstream.username:
            return False
        if self._peers.is_own(url):
            return True
        address, own = url.server.address, upstream.remote.address
        assert isinstance(address, TCPAddress)
        host = address.host.lower().rstrip(".")
        known = host in upstream.tokenhosts or url.server.authority.lower() in upstream.tokenhosts
        known = known or (isinstance(own, TCPAddress) and same_owner(host, own.host))
        if known and (url.server.scheme == "https" or upstream.remote.scheme == "http"):
            return True
        if host not in self._warned and len(self._warned) < _MOST:
            self._warned.add(host)
            advice = f"if {host} may have them, add it to tokenhosts" if not known else "it would have to be https"
            self._log.warn(
                "{upstream} wants a token from {url}, which is asked without user and password: {advice}",
                upstream=str(upstream.remote),
                url=str(url),
                advice=advice,
            )
        return False


#: What is as good for the log as it is.
_TELLING: Final = (OSError, ConnectError, ConnectionClosed, SSLError, VerificationError, TimeoutError)


class _TooLarge(RemoteError):
    """The answer is larger than what is taken."""


def _explain(error: BaseException) -> tuple[str, bool]:
    """
    :returns: why there is no answer, and whether it took too long. Errors of parsers only by their names: they repeat what came.
    """
    if isinstance(error, ResponseFailed) and error.reasons:
        error = error.reasons[0].value
    if isinstance(error, CancelledError):
        # What Agent makes of a time-out.
        error = TimeoutError()
    if isinstance(error, _TELLING):
        return explain(error), is_late(error)
    return f"it does not answer as a server of HTTP does ({type(error).__name__})", False


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Makes the connections of one request, and ends them with it: ``Agent`` waits for servers to agree to that."""

    def __init__(self, options: Any, timeout: float, reactor: Any) -> None:
        self._options = options
        self._timeout = timeout
        self._reactor = reactor
        self._made: list[Any] = []

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802 - IAgentEndpointFactory's name
        """Where to connect to."""
        endpoint = HostnameEndpoint(self._reactor, uri.host, uri.port, self._timeout)
        return _Noting(endpoint if self._options is None else wrapClientTLS(self._options, endpoint), self._made)

    def abort(self) -> None:
        """End what is left."""
        for protocol in self._made:
            if protocol.transport is not None:
                protocol.transport.abortConnection()


@implementer(IStreamClientEndpoint)
class _Noting:
    """Remembers what has been connected."""

    def __init__(self, endpoint: Any, made: list[Any]) -> None:
        self._endpoint = endpoint
        self._made = made

    def connect(self, factory: Any) -> Deferred[Any]:
        """See ``IStreamClientEndpoint``."""

        def note(protocol: Any) -> Any:
            self._made.append(protocol)
            return protocol

        connected: Deferred[Any] = self._endpoint.connect(factory)
        return connected.addCallback(note)
