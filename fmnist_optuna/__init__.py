"""Hyperparameter studies for Keras models: every cell of the grid exactly one result, and one honest winner."""

__version__ = "0.1.0"
