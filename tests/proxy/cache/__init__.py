"""Tests of :mod:`regd.proxy.cache`."""
