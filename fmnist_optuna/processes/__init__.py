"""Child processes from one warm server, their temporary files and cores. Knows no TensorFlow and no database."""
