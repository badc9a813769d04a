"""Consumers of the change feed other than the warehouse: the vectors of memories, the cache."""
