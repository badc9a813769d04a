"""Backups of a home: consistent, encrypted, verified copies in one file, and their restoration."""
