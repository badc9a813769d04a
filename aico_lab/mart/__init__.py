"""The tables from which most questions start; every sync brings them up to date."""
