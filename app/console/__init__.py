"""Pages for operators, rendered on the server; `site` mounts them all."""
