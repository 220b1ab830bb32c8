"""All that is Optuna's, with every reach into its private parts: storage, trials, samplers, pruners."""
