"""How SQLite is opened, and the one thread that writes."""
