"""What a client is told when an upstream did not give what it was asked for."""

from __future__ import annotations

import math

from regd.errors import BadGateway, Denied, GatewayTimeout, RegistryError, TooManyRequests
from regd.proxy.remote import errors as remote

__all__ = ["refusal"]


def refusal(error: remote.RemoteError, upstream: str, unknown: RegistryError) -> RegistryError:
    """
    :param upstream: its URL, as the operator wrote it: the client is told whom this registry asked, and no more of what came of it than it
        can use. The rest is for the log.
    :param unknown: what the client is told when the upstream has no such thing.
    """
    if isinstance(error, remote.NotThere):
        return unknown
    if isinstance(error, remote.Denied):
        return Denied(f"{upstream}, which this registry is a cache of, does not let it have this")
    if isinstance(error, remote.Limited):
        # RFC 9110, section 10.2.3: whole seconds.
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
        return TooManyRequests(f"{upstream}, which this registry is a cache of, has had too many requests", headers=headers)
    if isinstance(error, remote.Unreachable) and error.late:
        return GatewayTimeout(f"{upstream}, which this registry is a cache of, took too long")
    if isinstance(error, remote.Wrong):
        return BadGateway(f"{upstream}, which this registry is a cache of, sent something else than what was asked for")
    return BadGateway(f"{upstream}, which this registry is a cache of, cannot be asked at the moment")
