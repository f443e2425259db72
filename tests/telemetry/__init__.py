"""Tests of ``regd.telemetry``."""
