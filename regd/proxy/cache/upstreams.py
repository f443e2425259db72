"""
Which upstream a repository comes from, what it is called there, and what a client's ``ns`` says about it. Pure; no I/O.

A cached repository is stored under its local name: below the prefix of its upstream, ``docker.io/library/alpine``, or, where this whole
registry is a cache of one (``proxy.remoteurl``, an empty prefix), under the name that it has there.

A client that uses this registry as a mirror of another one (containerd's ``hosts.toml``) asks for the name that the repository has there,
and says in the query which registry that is (distribution specification 1.1, section "Registry Proxying")::

    GET /v2/library/alpine/manifests/latest?ns=docker.io
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from regd.config import CacheUpstream
from regd.errors import NameUnknown, Unsupported
from regd.names import RepositoryName

__all__ = ["Found", "Upstreams"]

#: What Docker Hub is called: in the names of images, where its API is, and by its index of old.
_HUB: Final = ("docker.io", "registry-1.docker.io", "index.docker.io")

#: Repositories of Docker Hub without an owner are those of its library.
_HUB_LIBRARY: Final = "library/"

#: What can still be done with a cached repository (RFC 9110, section 15.5.6).
_READ_METHODS: Final = {"Allow": "GET, HEAD"}

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


class Found(NamedTuple):
    """
    :ivar upstream: where a repository comes from.
    :ivar remote_name: what it is called there.
    """

    upstream: CacheUpstream
    remote_name: str


class Upstreams:
    """
    The :class:`~regd.web.namespaces.Namespaces` of a registry that is, in parts, a cache of others.

    :param upstreams: those that are configured, each with a prefix of its own.
    """

    def __init__(self, upstreams: Iterable[CacheUpstream]) -> None:
        self._by_prefix = {upstream.prefix: upstream for upstream in upstreams}
        #: By each authority that means one. Where two have the same, the one that comes first.
        self._by_authority: dict[str, CacheUpstream] = {}
        for upstream in self:
            for authority in _authorities(upstream):
                self._by_authority.setdefault(authority, upstream)

    def __iter__(self) -> Iterator[CacheUpstream]:
        """Those that are configured, in order."""
        return iter(self._by_prefix.values())

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._by_prefix)

    def find(self, name: str) -> Found | None:
        """
        Where a repository comes from: by the longest prefix that its name is below, of whole components.

        :returns: ``None`` for one that is local.
        """
        end = len(name)
        while (end := name.rfind("/", 0, end)) > 0:
            upstream = self._by_prefix.get(name[:end])
            if upstream is not None:
                return Found(upstream, _remote_name(upstream, name[end + 1 :]))
        upstream = self._by_prefix.get("")
        return None if upstream is None else Found(upstream, _remote_name(upstream, name))

    def with_namespace(self, name: RepositoryName, namespace: str) -> RepositoryName | None:
        """
        The local name of a repository that a client asks for by its name in another registry.

        A name that begins with the prefix of that registry already stays as it is: clients whose mirror has a path send both.

        :param namespace: the value of ``ns``: the host of a registry, perhaps with its port.
        :returns: ``None`` where ``namespace`` says nothing here, so that the name is a local one.
        :raises NameUnknown: when this registry is a cache of Docker Hub, and another one is meant.
        :raises NameInvalid: when the local name is too long.
        """
        namespace = namespace.lower() if namespace.isascii() else "\N{REPLACEMENT CHARACTER}"
        meant = _HUB if namespace in _HUB else (namespace,)
        whole = self._by_prefix.get("")
        if whole is not None:
            if not namespace or not _is_hub(whole):
                # What such an upstream may itself be a mirror of, it knows best.
                return name if namespace in self._by_authority else None
            if namespace not in self._by_authority:
                raise NameUnknown(
                    f"this registry is a cache of Docker Hub, and not of {namespace[:80]!r}", detail={"name": name, "ns": namespace[:80]}
                )
            return name
        for host in meant:
            # Also where only a part of that registry is cached: docker.io/library, say.
            # A host with a port is the beginning of no name.
            found = self.find(f"{host}/{name}") if RepositoryName.fits(host) else None
            if found is not None:
                here = self.find(name)
                if here is not None and (here.upstream is found.upstream or name.startswith(f"{host}/")):
                    return name
                return RepositoryName.parse(f"{host}/{name}")
        upstream = self._by_authority.get(namespace)
        if upstream is None:
            return None
        here = self.find(name)
        return name if here is not None and here.upstream is upstream else RepositoryName.parse(f"{upstream.prefix}/{name}")

    def refuse_write(self, name: RepositoryName) -> None:
        """
        :raises Unsupported: when the repository is an upstream's.
        """
        found = self.find(name)
        if found is None:
            return
        upstream, remote_name = found
        what = f"what is below {upstream.prefix}/ here" if upstream.prefix else "this registry"
        here = f", or here under a name that does not begin with {upstream.prefix}/" if upstream.prefix else ""
        raise Unsupported(
            f"{what} is a cache of {upstream.remote}, so nothing is pushed to it or deleted from it: push to {remote_name} there{here}",
            headers=_READ_METHODS,
        )


def _remote_name(upstream: CacheUpstream, name: str) -> str:
    return _HUB_LIBRARY + name if "/" not in name and _is_hub(upstream) else name


def _is_hub(upstream: CacheUpstream) -> bool:
    return not _authorities(upstream).isdisjoint(_HUB)


def _authorities(upstream: CacheUpstream) -> frozenset[str]:
    """What a client may call the upstream: with the port that its scheme has by default, and without."""
    authority = upstream.remote.authority.lower()
    default = _DEFAULT_PORTS[upstream.remote.scheme]
    bare = authority.removesuffix(default)
    if bare in _HUB:
        return frozenset(host + port for host in _HUB for port in ("", default))
    has_other_port = ":" in bare.rpartition("]")[2]
    return frozenset({bare} if has_other_port else {bare, bare + default})
