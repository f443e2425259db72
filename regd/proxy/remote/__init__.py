"""The client of a remote registry: what a pull-through cache asks its upstreams, and what can come of it."""

from __future__ import annotations

from regd.proxy.remote.client import Remote
from regd.proxy.remote.errors import Denied, Limited, NotThere, RemoteError, Unreachable, Wrong
from regd.proxy.remote.values import RemoteBlob, RemoteManifest, TagPage

__all__ = ["Denied", "Limited", "NotThere", "Remote", "RemoteBlob", "RemoteError", "RemoteManifest", "TagPage", "Unreachable", "Wrong"]
