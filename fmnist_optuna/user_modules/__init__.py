"""The user's modules: finding, importing and executing them anew, reading their source, putting Keras back."""
