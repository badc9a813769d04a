"""Conversation patterns."""
