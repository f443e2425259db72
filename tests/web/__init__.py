"""Tests of ``regd.web``: HTTP in and out, on real protocol objects."""
