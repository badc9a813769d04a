"""A home: its folder, its keys, safe writing of its files, copies of notebooks to work in."""
