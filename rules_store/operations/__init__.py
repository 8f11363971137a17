"""What the store can do: one use case, one transaction."""
