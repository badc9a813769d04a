"""Change the keys of a home: its slots, and its master key with that of every store."""
