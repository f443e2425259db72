"""
What happened, in the form that ``registry:2`` tells it: envelopes of type ``application/vnd.docker.distribution.events.v1+json``.

Fields stand in the order that ``registry:2`` writes them in, and those that it leaves out when they are empty are left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["MEDIA_TYPE", "Action", "Actor", "Event", "Request", "Source", "Target", "envelope", "parse", "record"]

#: The media type of an envelope, as registry:2 has it and receivers check it; version 3 calls the same v2.
MEDIA_TYPE: Final = "application/vnd.docker.distribution.events.v1+json"

Action = Literal["push", "pull", "mount", "delete"]


@dataclass(frozen=True, slots=True)
class Request:
    """
    The request that made it happen.

    :ivar addr: the client's address, with its port where it is known.
    :ivar host: what the client calls this registry.
    """

    id: str
    addr: str
    host: str
    method: str
    useragent: str


@dataclass(frozen=True, slots=True)
class Actor:
    """Who made it happen; nameless where nobody is asked who they are."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """
    Which registry tells it.

    :ivar addr: host name and port.
    :ivar instance: a UUID, another one for each time that the process is started.
    """

    addr: str
    instance: str


@dataclass(frozen=True, slots=True)
class Target:
    """
    What it happened to.

    :ivar size: in bytes; 0 of what has been deleted.
    :ivar digest: empty of a tag that has been deleted.
    :ivar from_repository: where a blob was mounted from.
    :ivar references: descriptors, each as JSON has it, of what a manifest refers to; only where ``includereferences`` asks for them.
        ``Any``: they have fields of several types.
    """

    repository: str
    media_type: str = ""
    size: int = 0
    digest: str = ""
    from_repository: str = ""
    url: str = ""
    tag: str = ""
    references: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """
    One thing that happened.

    :ivar id: a UUID.
    :ivar when: seconds since the epoch.
    """

    id: str
    when: float
    action: Action
    target: Target
    request: Request
    actor: Actor
    source: Source


def record(event: Event) -> bytes:
    """An event as it stands in an envelope, in one line."""
    target = event.target
    about = {
        "mediaType": target.media_type,
        "size": target.size,
        "digest": target.digest,
        "length": target.size,
        "repository": target.repository,
        "fromRepository": target.from_repository,
        "url": target.url,
        "tag": target.tag,
        "references": list(target.references),
    }
    request, source = event.request, event.source
    # Of a request, id, method and user agent are always there in registry:2's.
    asked = {"id": request.id, **_filled({"addr": request.addr, "host": request.host}), "method": request.method}
    whole = {
        "id": event.id,
        "timestamp": _timestamp(event.when),
        "action": event.action,
        "target": _filled(about),
        "request": {**asked, "useragent": request.useragent},
        "actor": _filled({"name": event.actor.name}),
        "source": _filled({"addr": source.addr, "instanceID": source.instance}),
    }
    return json.dumps(whole, separators=(",", ":")).encode("ascii")


def parse(line: bytes) -> dict[str, Any]:
    """
    Read what :func:`record` has written. ``Any``: it is JSON.

    :raises ValueError: when it is no event.
    """
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict) or not isinstance(found.get("action"), str) or not isinstance(found.get("target"), dict):
        msg = "not an event"
        raise ValueError(msg)
    return found


def envelope(event: Mapping[str, Any]) -> bytes:
    """
    What is sent for an event, in the form of ``registry:2``, spaces included.

    :param event: as :func:`parse` reads it.
    """
    return json.dumps({"events": [event]}, indent=3).encode("ascii")


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _timestamp(when: float) -> str:
    """RFC 3339, in UTC; microseconds are what the clock has."""
    microseconds = round(when * 1_000_000)
    seconds, rest = divmod(microseconds, 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}{fraction}Z"
