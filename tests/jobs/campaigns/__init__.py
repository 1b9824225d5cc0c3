"""Jobs that are killed, again and again. `python -m tests.jobs.campaigns` runs them; the smallest size is a test."""
