"""Real clients against a gateway: `make test-clients`, by hand, not part of the CI."""
