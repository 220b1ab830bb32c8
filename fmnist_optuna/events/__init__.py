"""What happens in a study, as a stream that another program follows: one JSON object a line."""
