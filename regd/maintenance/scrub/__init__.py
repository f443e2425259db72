"""Scrubbing: everything that is stored is read, compared with what it should be, and mended where that is possible."""

from __future__ import annotations

from regd.maintenance.scrub.findings import Finding, Kind, Progress, Stage
from regd.maintenance.scrub.run import Orders, Running, Scrub

__all__ = ["Finding", "Kind", "Orders", "Progress", "Running", "Scrub", "Stage"]
