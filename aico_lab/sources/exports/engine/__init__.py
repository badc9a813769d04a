"""The machinery of exports: zips, recognition, damage, roles, people, times and records."""
