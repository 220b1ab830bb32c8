"""Data sets in common forms on disk: IDX files, arrays of NumPy, folders of pictures, the cache of Keras."""
