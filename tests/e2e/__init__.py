"""Real clients against a real daemon, each a process of its own."""
