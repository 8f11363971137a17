"""Prompt packs: one folder per domain, read by `app.prompt_library`. No code lives here."""
