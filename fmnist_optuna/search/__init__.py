"""What is searched: parameters, points of the search and their identity. Knows no study file, no Keras, no database."""
