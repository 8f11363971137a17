"""Benchmarks of the gateway itself: what it adds to a model server's own times."""
