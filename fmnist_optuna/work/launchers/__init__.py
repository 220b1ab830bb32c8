"""What starts worker processes for a supervisor: this machine, or a Ray cluster. Knows no Keras."""
