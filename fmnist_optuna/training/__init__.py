"""The Keras side: architectures, the compiled epoch, callbacks, weights. Knows no Optuna and no database."""
