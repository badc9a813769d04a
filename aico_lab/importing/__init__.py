"""Put the messages of a source into the primary database, and score their sentiment."""
