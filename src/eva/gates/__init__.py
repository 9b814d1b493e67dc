"""What a newborn prompt must pass."""
