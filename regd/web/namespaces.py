"""
What a name in a path means to a registry that has other registries' repositories besides its own.

A client that has this registry as a mirror of another one asks by the name that the repository has there, and says in the parameter ``ns``
which registry that is, as containerd does. Answers to such a request say in ``OCI-Namespace`` that it was understood.
"""

from __future__ import annotations

from typing import Final, Protocol

from regd.names import RepositoryName
from regd.web.arguments import argument
from regd.web.request import StreamingRequest

__all__ = ["Namespaces", "local_name"]

#: What of ``ns`` goes back in a header: the characters of a host with a port, an IPv6 address included.
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_/:[]")


class Namespaces(Protocol):
    """Names of repositories of several registries."""

    def with_namespace(self, name: RepositoryName, namespace: str) -> RepositoryName | None:
        """
        What a repository of another registry is called here.

        :param namespace: that registry, as the client calls it: a host, perhaps with its port.
        :returns: ``None`` where that says nothing here, so that ``name`` is one of this registry's own names.
        :raises RegistryError: when nobody can be meant.
        """

    def refuse_write(self, name: RepositoryName) -> None:
        """
        :raises Unsupported: when nothing can be pushed to this repository, or deleted from it, because it is another registry's.
        """


def local_name(namespaces: Namespaces, request: StreamingRequest, name: RepositoryName) -> RepositoryName:
    """
    What the repository is called here that a request is about; its answer is going to say so.

    :raises RegistryError: when there can be none.
    """
    namespace = argument(request, "ns")
    if namespace is None:
        return name
    found = namespaces.with_namespace(name, namespace)
    if found is None:
        return name
    if _PLAIN.issuperset(namespace):
        request.responseHeaders.setRawHeaders(b"OCI-Namespace", [namespace.encode("ascii")])
    return found
