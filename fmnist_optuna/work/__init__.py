"""Where the two sides meet: attempts, workers, their supervisor."""
