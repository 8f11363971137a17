"""Reflect: judge a group of trajectories, choose, and write down the difference as rules.

    answers      extracts the final answer of a text
    equivalence  groups answers that mean the same (math-verify in a worker process)
    scoring      perplexity, degeneration, similarity; pure
    selectors    answer groups or similarities -> Selection
    distiller    Selection -> prompt -> rules
    admission    refuses rules that must not be used

Nothing here talks to a model or a store.
"""
