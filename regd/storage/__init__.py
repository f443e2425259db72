"""Bytes at rest: the tree's layout, what a backend must do, and the backends. Knows neither HTTP nor the registry's rules."""
