"""Measuring a model on annotated pictures: predictions first, then scores that need no model, then a report."""
