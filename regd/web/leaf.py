"""What a resource without children has to have."""

from __future__ import annotations

from twisted.web.resource import IResource
from zope.interface import implementer

from regd.web.request import StreamingRequest

__all__ = ["Leaf"]


@implementer(IResource)
class Leaf:
    """What a resource without children has to have for the sake of the interface."""

    isLeaf = True  # noqa: N815 - IResource's name

    def render(self, request: StreamingRequest) -> object:
        """Answer a request."""
        raise TypeError(f"{type(self).__name__} does not say how")

    def getChildWithDefault(self, name: bytes, request: StreamingRequest) -> IResource:  # noqa: N802 - IResource's name
        """A leaf has no children, so nobody asks."""
        raise KeyError(name)

    def putChild(self, path: bytes, child: IResource) -> None:  # noqa: N802 - IResource's name
        """A leaf has no children."""
        raise TypeError("a leaf takes no children")
