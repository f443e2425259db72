"""Notifications: what happened in the registry, told to webhooks in registry:2's envelopes, and kept on disk until they know."""
