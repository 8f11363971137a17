"""Scripts that vLLM's own interpreter runs too: the standard library and nothing of the project."""
