"""Annotated pictures: files in any format -> records -> what a model reads and writes -> batches. No torch until masks are encoded."""
