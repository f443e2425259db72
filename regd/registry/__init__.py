"""The rules of a registry: what a push, a pull and a delete mean. Knows nothing of HTTP, and nothing of where files are."""
