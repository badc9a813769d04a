"""Bring the DuckDB warehouse up to date with the primary database, through Arrow."""
