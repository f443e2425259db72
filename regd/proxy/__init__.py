"""Requests that other servers answer: the reverse proxy, and the client that asks them."""
