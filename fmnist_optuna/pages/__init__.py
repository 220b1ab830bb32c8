"""What people look at: the report, the dashboard and what it shows, the time that is left."""
