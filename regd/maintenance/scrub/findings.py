"""What a scrub has found, and how far it has come: values that outlive a run as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

__all__ = ["KEPT", "Finding", "Kind", "Progress", "Stage"]

#: How many findings are kept with the progress, to be told again by the run that goes on; all are counted.
KEPT: Final = 1000

#: The form of the file; one of another form begins a scrub anew.
_FORM: Final = 1


class Kind(StrEnum):
    """What a finding means to those who pull."""

    #: Something cannot be pulled, or is not what it says.
    DAMAGE = "damage"
    #: Something that nobody needs, and that ``--repair`` removes.
    LEFTOVER = "leftover"
    #: Something that is not known here, or not served, and that nobody but a person should touch.
    STRANGE = "strange"


class Stage(StrEnum):
    """What a scrub goes through, in this order."""

    REPOSITORIES = "repositories"
    BLOBS = "blobs"
    LEFTOVERS = "leftovers"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that is not as it should be.

    :ivar path: where, relative to the root of the storage.
    :ivar what: what is wrong.
    :ivar remedy: what can be done about it; what was done, where ``mended``.
    """

    path: str
    what: str
    remedy: str
    kind: Kind = Kind.DAMAGE
    mended: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}"


@dataclass(slots=True)
class Progress:
    """
    How far a scrub has come.

    :ivar started: when it began, RFC 3339.
    :ivar ended: when it came to its end, or was stopped; empty while it runs.
    :ivar repair: whether it mends.
    :ivar position: the last repository, or blob, of this stage that is done; empty before the first.
    :ivar links: links that were read.
    :ivar size: bytes that were hashed.
    :ivar orphans: blobs that no repository links, and ``orphan_bytes`` theirs: garbage, or pushes in progress, and no damage.
    :ivar empty: directories without the file that they are made for, as deletions of ``registry:2`` leave them.
    :ivar damaged: how much damage was found, and ``mended``: how much of it is no more.
    :ivar findings: the first :data:`KEPT` of them.
    """

    started: str = ""
    ended: str = ""
    repair: bool = False
    stage: Stage = Stage.REPOSITORIES
    position: str = ""
    repositories: int = 0
    manifests: int = 0
    links: int = 0
    blobs: int = 0
    size: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    empty: int = 0
    damaged: int = 0
    mended: int = 0
    leftovers: int = 0
    removed: int = 0
    strange: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def remaining(self) -> int:
        """Damage that is still there."""
        return self.damaged - self.mended

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it if there is room."""
        if finding.kind is Kind.DAMAGE:
            self.damaged += 1
            self.mended += finding.mended
        elif finding.kind is Kind.LEFTOVER:
            self.leftovers += 1
            self.removed += finding.mended
        else:
            self.strange += 1
        if len(self.findings) < KEPT:
            self.findings.append(finding)

    def to_json(self) -> bytes:
        """The form that it is stored in."""
        return json.dumps({"form": _FORM, **asdict(self)}, indent=1).encode("ascii")

    @classmethod
    def from_json(cls, content: bytes) -> Progress:
        """
        :raises ValueError: when this is not what :meth:`to_json` makes.
        """
        try:
            document = json.loads(content)
            if not isinstance(document, dict) or document.pop("form", None) != _FORM:
                raise ValueError("not the progress of a scrub")
            listed = document.pop("findings")
            if not isinstance(listed, list):
                raise ValueError("not the progress of a scrub: findings is no list")
            findings = [Finding(**{**found, "kind": Kind(found["kind"])}) for found in listed]
            progress = cls(**{**document, "stage": Stage(document["stage"])}, findings=findings)
            _check_types(progress, {one.name: one.type for one in fields(cls)})
            for finding in findings:
                _check_types(finding, {one.name: one.type for one in fields(Finding)})
        # RecursionError: JSON that nests deeper than the parser goes.
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"not the progress of a scrub: {error}") from None
        return progress


#: The types of fields, by their names in annotations. Any: what ``dataclasses`` keeps of an annotation.
_TYPES: Final[Mapping[Any, type]] = {"str": str, "int": int, "bool": bool, "Stage": Stage, "Kind": Kind, "list[Finding]": list}


def _check_types(value: object, types: Mapping[str, Any]) -> None:
    for name, annotation in types.items():
        if type(getattr(value, name)) is not _TYPES[annotation]:
            raise ValueError(f"not the progress of a scrub: {name} is no {annotation}")

