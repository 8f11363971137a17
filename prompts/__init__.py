"""Prompt packs: one folder per domain, read by `app.templates`. No code lives here."""
