"""The number of random examples that tests try: in the fast subset a quarter."""

from __future__ import annotations

from hypothesis import settings

WHOLE = 100  # Hypothesis' own default


def be_quick() -> None:
    """Set the default of the fast subset; call this before a test module is imported."""
    settings.register_profile("fast", settings.default, max_examples=WHOLE // 4)
    settings.load_profile("fast")


def examples(count: int) -> int:
    """Return the number of examples to try, given that of a whole run."""
    return count * settings.default.max_examples // WHOLE
