"""The study file: its tables, reading and explaining it, the record of a model's code. Knows no Keras, no database."""
