"""What the daemon says of itself: logs, the access log, health."""
