"""Tests of :mod:`regd.tls`."""
