"""The client of a remote registry: what a pull-through cache asks its upstreams, and what can come of it."""
