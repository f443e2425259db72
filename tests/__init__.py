"""Tests of regd; the tree mirrors ``regd/``, and ``tests/e2e`` drives real clients."""
