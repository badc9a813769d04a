"""The schema of the primary database: versions, migrations, and the triggers of the change feed."""
