"""Tests of :mod:`regd.proxy`."""
