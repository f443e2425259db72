"""Tests of regd.cli."""
