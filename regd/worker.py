"""
A worker process, ``python -m regd.worker REACTOR LOCK``; nobody but the parent (:mod:`regd.workers.children`) starts it.

The reactor is installed before anything is imported that would install another one.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Serve until the parent says that it is enough, or is gone."""
    # A terminal sends these to all processes of a group, and a supervisor to all of a service. What they mean is the business of the
    # parent, which passes it on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    _, reactor_module, lock = sys.argv
    # Any: modules that are named at run time.
    installer: Any = importlib.import_module(reactor_module)
    installer.install()
    worker: Any = importlib.import_module("regd.service.worker")
    sys.exit(worker.run(share_log=lock == "shared"))


if __name__ == "__main__":
    main()
