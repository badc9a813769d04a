"""How much is tried of what is made at random: in the fast subset a quarter."""

from __future__ import annotations

from hypothesis import settings

WHOLE = 100  # Hypothesis' own default


def be_quick() -> None:
    """Try less from now on; before a test module is imported."""
    settings.register_profile("fast", settings.default, max_examples=WHOLE // 4)
    settings.load_profile("fast")


def examples(count: int) -> int:
    """Give how many examples to try where a whole run tries so many."""
    return count * settings.default.max_examples // WHOLE
