"""Tables that most questions start from, kept up to date with every sync."""
