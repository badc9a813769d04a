"""Settings of Hypothesis: no deadlines, and in the fast subset a quarter of the examples."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

WHOLE = 100  # Hypothesis' own default

# On a machine with other work, the time that one example or its data take says nothing.
# `.ci/run` always tries the same examples: a change is judged by what it changes, not by an
# example that chance finds elsewhere. All other runs search for new ones.
settings.register_profile(
    "whole", deadline=None, suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)  # fmt: skip
settings.register_profile("fast", settings.get_profile("whole"), max_examples=WHOLE // 4)


def load(*, fast: bool) -> None:
    """Load the settings of the fast subset or of a whole run, before test modules are imported."""
    settings.load_profile("fast" if fast else "whole")


def examples(count: int) -> int:
    """Return the number of examples to try, given that of a whole run."""
    return count * settings.default.max_examples // WHOLE
