"""Images and labels: where they come from, their split, and how processes share them. Knows no Keras."""
