"""Tamper evidence of the primary database: its seal, its checks, and the review of what changed."""
