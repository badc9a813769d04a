"""Tune the companion's personality: logged decisions, their estimated effects, and changes."""
