"""How well segments agree with annotated threads of real conversations: the README's claims."""

from __future__ import annotations

import pytest

from tests.annotated import METHODS, agreement, threads

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def some():
    """Threads of people on whom no default was chosen."""
    return threads("reporting", 12)


def test_pauses_and_coherence_find_conversations_far_better_than_a_fixed_size(some):
    """With real times; the pause alone is as good, which the README says."""
    of = {
        name: agreement(some, lambda one, find=method: find(one, "real"))
        for name, method in METHODS.items()
    }
    for measure in (0, 1):
        ours = of["pause and coherence"][measure]
        assert ours < of["every 60 messages"][measure] / 2
        assert ours < of["no boundary"][measure] / 1.5
        assert ours == pytest.approx(of["pause of 10 minutes"][measure], abs=0.05)


def test_without_times_coherence_does_no_harm(some):
    """It is no better than no boundary at all there, but better than any fixed size."""
    found = {
        name: agreement(some, lambda one, find=METHODS[name]: find(one, "none"))[0]
        for name in ("pause and coherence", "no boundary", "every 60 messages")
    }
    assert found["pause and coherence"] < found["every 60 messages"]
    assert found["pause and coherence"] == pytest.approx(found["no boundary"], abs=0.03)
