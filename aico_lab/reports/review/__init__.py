"""A month or a year in review, for the person who talked with a companion."""

from __future__ import annotations

from aico_lab.reports.review.page import Review

__all__ = ["Review"]
