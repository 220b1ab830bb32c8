"""Files that belong to a trial or a study: weights, pictures."""
