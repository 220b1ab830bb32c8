"""One study over the ledger and Optuna: creating, joining, healing, verifying, deleting it. Knows no Keras."""
