"""HTTP only: routes, what they take and give (`schemas`), and errors as answers."""
