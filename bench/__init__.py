"""Speed and memory, compared with Hugging Face transformers in one run: `python -m bench`."""
