"""What a block may take: limits that find hours in place of seconds, on any machine."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MARGIN = 10
"""Machines differ, and other work slows each of them."""


@contextmanager
def takes_about(seconds: float) -> Iterator[None]:
    """Fail where the block takes more than ten times these seconds of processor time."""
    began = time.process_time()
    yield
    assert time.process_time() - began < MARGIN * seconds
