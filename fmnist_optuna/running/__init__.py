"""A whole study in one call: the data decided, the study made or joined, its cells trained, the winner scored."""
