"""What a pull-through cache is told: the registries that it stands in front of, and how much of them it keeps."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from regd.config.proxying import Timeouts, Upstream, UpstreamTLS, parse_upstream

__all__ = ["CacheLimits", "CacheUpstream", "PullThrough", "parse_remote"]

_URL: Final = re.compile(r"https?://([^/?#\s]+)(/?)\Z", re.IGNORECASE)
_PATH: Final = re.compile(r"https?://[^/?#\s]+/[^?#\s]+\Z", re.IGNORECASE)
_ALLOWED: Final = "the URL of a registry, http://host[:port] or https://host[:port], without user, path, query and fragment"


def parse_remote(text: str) -> Upstream:
    """Read ``remoteurl``.

    :raises ValueError: anything else than a scheme, a host and perhaps a port; the message says what is allowed, and of a path, what to do.
    """
    if _PATH.match(text):
        msg = f"{_ALLOWED}; the API of a registry is at /v2/ of its host, and names below a path are written in what is pulled"
        raise ValueError(msg)
    if not _URL.match(text):
        raise ValueError(_ALLOWED)
    return parse_upstream(text)


@dataclass(frozen=True)
class CacheUpstream:
    """One registry that content is fetched from.

    :ivar prefix: what the names of its repositories begin with here, a repository name itself; empty where all of this registry is its
        cache.
    :ivar username: empty for none; neither it nor the password is ever shown.
    :ivar tagttl: seconds for which a tag is served without asking the upstream again.
    :ivar stale: seconds, from when the upstream last said what it means, for which a tag is served while the upstream cannot be asked.
    :ivar tokenhosts: hosts, in lower case, that the user and the password may be sent to for a token, besides those that belong to the
        upstream.
    """

    prefix: str
    remote: Upstream
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tagttl: float = 60.0
    stale: float = 86400.0
    tls: UpstreamTLS = field(default_factory=UpstreamTLS)
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(connect=10.0, read=60.0, write=60.0))
    tokenhosts: tuple[str, ...] = ()

    @property
    def remoteurl(self) -> Upstream:
        """``remote``, by the name that it has in the file."""
        return self.remote


@dataclass(frozen=True)
class CacheLimits:
    """``proxy.cache``: how much is kept of what was fetched.

    :ivar maxsize: bytes that cached blobs may take together; ``None`` for no limit.
    :ivar maxage: seconds since its last use for which content is kept; ``None`` for ever.
    :ivar interval: seconds from one look at this to the next.
    """

    maxsize: int | None = None
    maxage: float | None = None
    interval: float = 3600.0

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.maxsize is not None or self.maxage is not None


@dataclass(frozen=True)
class PullThrough:
    """``proxy``.

    :ivar upstreams: empty where nothing is cached; else one with an empty prefix (``proxy.remoteurl``), or any number with other ones.
    """

    upstreams: tuple[CacheUpstream, ...] = ()
    limits: CacheLimits = CacheLimits()

    @property
    def whole(self) -> CacheUpstream | None:
        """The upstream that all of this registry is a cache of, if it is so."""
        return next((upstream for upstream in self.upstreams if not upstream.prefix), None)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of cached repositories begin with; an empty one stands for all of them."""
        return tuple(upstream.prefix for upstream in self.upstreams)
