"""Tests of the rules of a registry."""
