"""
Where everything is put together: a configuration in, a Twisted service out. The only room that knows all the others.

:mod:`~regd.service.serving` is what answers requests: storage, registry and site of one process. :mod:`~regd.service.daemon` is what
``twistd`` runs: sockets, log, signals, and whoever serves.
"""

from __future__ import annotations

from regd.service.options import Options, makeService

__all__ = ["Options", "makeService"]
