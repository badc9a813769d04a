"""Choose the way in which a sync reads tables: by pages, as it reads large ones, or by SQL."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from aico_lab.etl import extract

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reads(*, by_pages: bool) -> Iterator[None]:
    """Read every table in one of the two ways inside the block, however small it is.

    A table that is large enough to be read by pages has 32 MB in homes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "PAGEWISE", 0 if by_pages else sys.maxsize)
        yield
