"""Is this data fit to train on? What a run would see of it, counted, measured and drawn before anything is trained."""
