"""The rows of the table: what each one is called, whom it compares regd with, and what it is to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks import loads
from benchmarks.candidates import (
    CACHE,
    GUARDED,
    NGINX,
    NGINX_CACHE,
    NGINX_PROXY,
    NGINX_REGISTRY,
    NGINX_SECURE,
    OPEN,
    PROXY,
    PROXY_REGISTRY,
    REGD,
    REGISTRY,
    REGISTRY_CACHE,
    SECURE,
    SECURE_REGISTRY,
)
from benchmarks.data import EMPTY, SEEDED, Data, repositories, tags
from benchmarks.loads import Load
from benchmarks.results import Goal, Unit

__all__ = ["ROWS", "Row"]

BYTES: Final = Unit("MB/s", 1e-6, "s/GB", 1e9)
REQUESTS: Final = Unit("requests/s", 1.0, "ms/request", 1e3)
IMAGES: Final = Unit("images/s", 1.0, "ms/image", 1e3)
PAGE: Final = Unit("ms", 1e3, "ms/request", 1e3, digits=2, lower=True)
LATENCY: Final = Unit("ms", 1e3, "s/GB", 1e9, digits=1, lower=True)
IDLE: Final = Unit("s/minute", 1.0, "s/minute", 60.0, digits=3, lower=True)
MEMORY: Final = Unit("MiB", 2.0**-20, "s/load", 1.0, digits=0, lower=True)

_ONE: Final = (REGISTRY.name,)
_BOTH: Final = (REGISTRY.name, NGINX_REGISTRY.name)
_HITS: Final = partial(loads.cached, load=partial(loads.pull, clients=4), digest="large")
_MEDIA: Final = ("tmpfs", "disk")
_COUNTS: Final = (1000, 10_000, 100_000)


@dataclass(frozen=True)
class Row:
    """
    :ivar name: what to call it on the command line.
    :ivar title: what it does.
    :ivar unit: how it is told.
    :ivar peers: whom regd is compared with.
    :ivar data: what a turn begins with.
    :ivar load: does it.
    :ivar goals: what is to be reached.
    :ivar media: where it is measured, unless there is only one.
    :ivar pairs: how many pairs of turns are enough, where it is fewer than usual.
    :ivar subject: what is compared with them, where it is not the registry alone.
    """

    name: str
    title: str
    unit: Unit
    peers: tuple[str, ...]
    data: Data
    load: Load
    goals: tuple[Goal, ...] = ()
    media: tuple[str, ...] = _MEDIA
    pairs: int = 1000
    subject: str = REGD.name


_ALL: Final = (*_BOTH, NGINX.name)

# The goals: so many times as good as Debian's registry, or as nginx with files; or a limit in seconds or bytes.
_TEN_TIMES: Final = (Goal(10, REGISTRY.name),)
_TWELVE_TIMES: Final = (Goal(12, REGISTRY.name),)
_TWICE: Final = (Goal(2, REGISTRY.name),)
_PUSH: Final = (Goal(3, REGISTRY.name, "tmpfs"), Goal(2, REGISTRY.name, "disk"))
_IMAGES: Final = (Goal(4, REGISTRY.name, "disk"),)
_AS_FILES: Final = (Goal(1.2, NGINX.name),)
_PROXIES: Final = (NGINX_PROXY.name,)
_CACHES: Final = (REGISTRY_CACHE.name, NGINX_CACHE.name)
_LEVEL: Final = (Goal(1, NGINX_PROXY.name),)
_SECURE: Final = (NGINX_SECURE.name, SECURE_REGISTRY.name)
_LEVEL_WITH_TLS: Final = (Goal(1, NGINX_SECURE.name),)
_NEXT_TO_NOTHING: Final = (Goal(0.95, OPEN.name),)
_A_PAGE: Final = (Goal(0.005),)
_SOON: Final = (Goal(0.02),)
_AT_REST: Final = (Goal(0.05),)
_SMALL: Final = (Goal(80 * 2**20),)


def _page(name: str, noun: str, count: int, data: Callable[[int], Data], load: Load) -> Row:
    """A page out of a tree; that of 100,000 has a peer, the others only show that the size does not matter."""
    full = count == 100_000
    return Row(
        name if full else f"{name}-{count // 1000}k",
        f"a page of 100 out of {count:,} {noun}",
        PAGE,
        _ONE if full else (),
        data(count),
        load,
        _A_PAGE,
        pairs=5 if full else 2,
    )


#: In the order of the table.
ROWS: Final = {
    row.name: row
    for row in (
        Row("push-fixed", "push 64 MiB blobs, Content-Length, 2 clients", BYTES, _BOTH, EMPTY, partial(loads.push, chunked=False), _PUSH),
        Row("push-chunked", "push 64 MiB blobs, chunked, 2 clients", BYTES, _BOTH, EMPTY, partial(loads.push, chunked=True), _PUSH),
        Row("pull-1", "pull a 256 MiB blob, 1 client", BYTES, _ALL, SEEDED, partial(loads.pull, clients=1), _AS_FILES),
        Row("pull-2", "pull a 256 MiB blob, 2 clients", BYTES, _ALL, SEEDED, partial(loads.pull, clients=2), _AS_FILES),
        Row("pull-4", "pull a 256 MiB blob, 4 clients", BYTES, _ALL, SEEDED, partial(loads.pull, clients=4), _AS_FILES),
        Row("range-1m", "GET 1 MiB out of 1 GiB, 32 connections", REQUESTS, _ALL, SEEDED, loads.ranges, _TWICE),
        Row("v2-base", "GET /v2/, 32 connections", REQUESTS, _BOTH, EMPTY, loads.base),
        Row("manifest-tag", "GET a manifest by tag, 32 connections", REQUESTS, _BOTH, SEEDED, loads.manifest_by_tag, _TEN_TIMES),
        Row("manifest-digest", "GET it by digest, 32 connections", REQUESTS, _BOTH, SEEDED, loads.manifest_by_digest, _TEN_TIMES),
        Row("manifest-head", "HEAD it by tag, 32 connections", REQUESTS, _BOTH, SEEDED, loads.manifest_head, _TEN_TIMES),
        Row("blob-small", "GET a 1 KiB blob, 32 connections", REQUESTS, _BOTH, SEEDED, loads.small_blob, _TWELVE_TIMES),
        Row("images-small", "push images of two small blobs, 4 clients", IMAGES, _BOTH, EMPTY, loads.small_images, _IMAGES),
        *(_page("tags-page", "tags", count, tags, loads.tags_page) for count in _COUNTS),
        *(_page("catalog-page", "repositories", count, repositories, loads.catalog_page) for count in _COUNTS),
        Row("latency-p99", "GET /v2/ beside 8 uploads and 8 downloads", LATENCY, _BOTH, EMPTY, loads.latency_under_streams, _SOON),
        *(
            Row(
                f"proxy-pull-{clients}",
                f"pull a 256 MiB blob through a proxy, {clients} client{'s' if clients > 1 else ''}",
                BYTES,
                _PROXIES,
                SEEDED,
                partial(loads.pull, clients=clients),
                _LEVEL,
                subject=PROXY.name,
            )
            for clients in (1, 2)
        ),
        Row(
            "proxy-small",
            "GET a 1 KiB file through a proxy, 32 connections",
            REQUESTS,
            _PROXIES,
            SEEDED,
            loads.small_blob,
            subject=PROXY.name,
        ),
        *(
            Row(
                f"proxy-push-{kind}",
                f"push 64 MiB blobs through a proxy, {words}, 2 clients",
                BYTES,
                (NGINX_REGISTRY.name,),
                EMPTY,
                partial(loads.push, chunked=kind == "chunked"),
                subject=PROXY_REGISTRY.name,
            )
            for kind, words in (("fixed", "Content-Length"), ("chunked", "chunked"))
        ),
        *(
            Row(f"cache-{name}", title, BYTES, _CACHES, SEEDED, load, subject=CACHE.name)
            for name, title, load in (
                ("miss", "pull a 1 GiB blob that the cache does not have, 1 client", partial(loads.fetch, clients=1)),
                ("miss-8", "pull a 256 MiB blob that it does not have, 8 clients at once", partial(loads.fetch, clients=8)),
                ("hit", "pull a 256 MiB blob that it has, 4 clients", _HITS),
            )
        ),
        Row(
            "cache-small",
            "GET a 1 KiB blob that the cache has, 32 connections",
            REQUESTS,
            _CACHES,
            SEEDED,
            partial(loads.cached, load=loads.small_blob, digest="small"),
            subject=CACHE.name,
        ),
        *(
            Row(
                f"tls-push-{kind}",
                f"push 64 MiB blobs over TLS, {words}, 2 clients",
                BYTES,
                _SECURE,
                EMPTY,
                partial(loads.push, chunked=kind == "chunked"),
                _LEVEL_WITH_TLS,
                subject=SECURE.name,
            )
            for kind, words in (("fixed", "Content-Length"), ("chunked", "chunked"))
        ),
        *(
            Row(
                f"tls-pull-{clients}",
                f"pull a 256 MiB blob over TLS, {clients} client{'s' if clients > 1 else ''}",
                BYTES,
                _SECURE,
                SEEDED,
                partial(loads.pull, clients=clients),
                _LEVEL_WITH_TLS,
                subject=SECURE.name,
            )
            for clients in (1, 2)
        ),
        *(
            Row(name, title, REQUESTS, (OPEN.name,), SEEDED, load, _NEXT_TO_NOTHING, media=("tmpfs",), subject=GUARDED.name)
            for name, title, load in (
                ("access-anonymous", "GET a manifest by tag where rules say who may", loads.manifest_by_tag),
                ("access-password", "the same with a name and a password", loads.manifest_by_user),
            )
        ),
        # An idle daemon knows no medium, and a minute is a minute.
        Row("idle", "CPU of an idle server", IDLE, (), EMPTY, loads.idle, _AT_REST, media=("tmpfs",), pairs=1),
        Row("memory", "the largest process after all loads in one life", MEMORY, _ONE, EMPTY, loads.everything, _SMALL, pairs=1),
    )
}
