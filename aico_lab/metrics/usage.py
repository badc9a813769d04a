"""Usage and preferences: mood, vocabulary, languages, and what people set."""
