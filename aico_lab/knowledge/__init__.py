"""People's own documents, cut into chunks that a search finds."""
