"""The only importers of database drivers; each translates its driver's errors into our tree."""
