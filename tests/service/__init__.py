"""How everything is put together."""
