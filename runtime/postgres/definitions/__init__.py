"""What is to run: jobs, calendars and their sources, changed as a whole or not at all."""
