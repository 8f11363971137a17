"""The rule store: SQL as the truth, FAISS as its cache. Imports nothing from `app`."""
