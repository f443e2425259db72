"""Tests of :mod:`regd.proxy.remote`."""
