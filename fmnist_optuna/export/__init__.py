"""A trained model for others: SavedModel, model card, parity check, predictions."""
