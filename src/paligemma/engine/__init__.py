"""Choosing tokens: a model and prompts as ids -> answers as ids, with probabilities, limits and grammars."""
