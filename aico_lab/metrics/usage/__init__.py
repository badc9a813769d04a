"""Usage and preferences."""
