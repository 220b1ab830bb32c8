"""Our tables and every statement on them: cells, epochs, openings, workers. Knows neither Keras nor Optuna."""
