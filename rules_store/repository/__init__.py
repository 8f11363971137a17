"""Every SQL statement of the store. Functions over a connection; the caller commits."""
