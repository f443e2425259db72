"""Lists that a remote registry answers, whatever it makes of pages (OCI distribution specification 1.1, "Content Discovery"). Pure."""

from __future__ import annotations

import json
from urllib.parse import parse_qs

from regd.errors import TagInvalid
from regd.names import Tag
from regd.proxy.remote.values import TagPage

__all__ = ["BadList", "parse_manifests", "parse_tags"]


class BadList(ValueError):
    """What should be a list is none."""


def parse_tags(content: bytes, link: str | None, n: int | None, last: str) -> TagPage:
    """
    Read a page of tags.

    :param link: where the registry says that the next page is.
    :param n: how many were asked for, and ``last`` after which; a registry that does not do pages sends all that it has.
    :raises BadList: when it is none.
    """
    found = _load(content).get("tags")
    # Go writes an empty slice as null.
    found = [] if found is None else found
    if not isinstance(found, list):
        raise BadList("there is no list of tags in it")
    tags = [tag for tag in found if isinstance(tag, str) and _is_tag(tag)]
    if n == 0:
        return TagPage((), None)
    if link is None and last in tags:
        tags = tags[tags.index(last) + 1 :]
    if n is not None and len(tags) > n:
        return TagPage(tuple(tags[:n]), tags[n - 1])
    if link is None:
        return TagPage(tuple(tags), None)
    said = parse_qs(link.partition("?")[2], max_num_fields=20).get("last", tags[-1:])
    # One that leads here again would lead here for ever.
    return TagPage(tuple(tags), said[0] if said and said[0] != last else None)


def parse_manifests(content: bytes) -> list[object]:
    """
    The descriptors of an image index.

    :raises BadList: when it is none.
    """
    found = _load(content).get("manifests")
    found = [] if found is None else found
    if not isinstance(found, list):
        raise BadList("there is no list of manifests in it")
    return found


def _load(content: bytes) -> dict[str, object]:
    try:
        document = json.loads(content.decode("utf-8"))
    # RecursionError: a few kilobytes of "[" nest deeper than the parser goes.
    except (ValueError, RecursionError):
        raise BadList("it is no JSON") from None
    if not isinstance(document, dict):
        raise BadList("it is no JSON object")
    return document


def _is_tag(text: str) -> bool:
    try:
        Tag.parse(text)
    except TagInvalid:
        return False
    return True
