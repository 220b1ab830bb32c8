"""What a finished study yields."""
