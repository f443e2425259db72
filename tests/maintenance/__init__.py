"""Tests of what is done to the storage besides serving it."""
