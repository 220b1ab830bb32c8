"""What a finished study yields: the winner, its test score, the confirmation over seeds, a reproduction."""
