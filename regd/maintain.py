"""A chore of the maintenance, ``python -m regd.maintain``; nobody but the daemon (:mod:`regd.maintenance.process`) starts it."""

from __future__ import annotations

import sys

from regd.maintenance.child import main

if __name__ == "__main__":
    sys.exit(main())
