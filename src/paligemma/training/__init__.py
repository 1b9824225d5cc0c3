"""Fine-tuning: recipes, optimizers, the step, the loop that never loses a run. Imports nothing of `evaluation`: the door hands it over."""
