"""What is done to the storage besides serving it: the gate, garbage collection, the purge of uploads, the scrub."""
