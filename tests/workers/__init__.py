"""Several processes, without processes: the parts between a parent and its workers."""
