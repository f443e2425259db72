"""The list of a repository's tags."""

from __future__ import annotations

from regd.errors import NameUnknown, TagInvalid
from regd.names import RepositoryName, Tag
from regd.pace import Breathe, Pace
from regd.registry.pages import Page, names_after
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Driver, Missing
from regd.storage.links import Links

__all__ = ["Tags"]


class Tags:
    """Lists tags in the order of their bytes, reading no more links than a page needs."""

    def __init__(self, driver: Driver, links: Links, damage: Damage, breathe: Breathe) -> None:
        self._driver = driver
        self._links = links
        self._damage = damage
        self._breathe = breathe

    async def page(self, name: RepositoryName, limit: int, last: str = "") -> Page[Tag]:
        """
        Up to ``limit`` tags after ``last``, which need not be one.

        :raises NameUnknown: when there is no such repository. One that has manifests and no tags has an empty page.
        """
        found: list[Tag] = []
        try:
            # One more than the page holds: whether there is a next page.
            async for entry in names_after(self._driver, layout.tags(name), last, limit + 1, Pace(self._breathe)):
                if len(found) == limit:
                    return Page(tuple(found), found[-1] if found else "")
                tag = await self._tag(name, entry)
                if tag is not None:
                    found.append(tag)
        except Missing:
            if not await self._driver.exists(layout.manifests(name)):
                raise NameUnknown(detail={"name": name}) from None
        return Page(tuple(found))

    async def _tag(self, name: RepositoryName, entry: str) -> Tag | None:
        directory = layout.inside(layout.tags(name), entry)
        try:
            tag = Tag.parse(entry)
        except TagInvalid:
            self._damage.report(directory, "not a tag's name, passed over")
            return None
        link = layout.tag_link(name, tag)
        if await self._links.read(link) is not None:
            return tag
        if not await self._driver.exists(link):
            self._damage.report(directory, "a tag without a current link, passed over")
        return None
