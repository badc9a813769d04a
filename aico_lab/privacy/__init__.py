"""Erasure of people, channels, conversations and imports from every store, with receipts."""
