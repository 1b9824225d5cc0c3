"""What pages for people are made of: how templates are read, one style, plots. They need no network, no script and no other file."""
