"""What an attacker can plant in the rule base, measured through a whole gateway."""
