"""Search conversations, memories and documents: by meaning, by words, or by both."""
