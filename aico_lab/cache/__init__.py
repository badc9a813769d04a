"""Hot state that may be lost: session context, and rows that are read again and again."""
