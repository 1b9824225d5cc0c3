"""The small bundled model: its drawn world, its lessons, its training, its measurement. Nothing else imports this."""
