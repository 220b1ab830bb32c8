"""Numbers for Prometheus: of the studies of a storage, and of one worker."""
