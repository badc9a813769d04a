"""The only importers of database drivers; each maps its driver's errors to `AicoLabError`s."""
