"""The Keras side: data, model, training. Knows no Optuna and no database."""
