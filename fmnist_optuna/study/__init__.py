"""The Optuna side: storage, ledger, history. Knows no Keras."""
