"""Consumers of the change feed besides the warehouse: the vectors of memories, and the cache."""
