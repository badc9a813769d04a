"""Remember in which conversation each of very many messages is, in little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aico_lab.importing.same_chat import ChatPlace

_LATER: Final = 50_000
"""Messages in a dict, which takes ten times the memory, before they go into arrays."""


class KnownPlaces:
    """The places of messages by the digests of their ids, in 12 bytes for each message."""

    def __init__(self) -> None:
        self._digests = np.empty(0, np.uint64)  # sorted
        self._numbers = np.empty(0, np.uint32)
        self._later: dict[int, int] = {}
        self._places: list[ChatPlace] = []
        self._by_place: dict[ChatPlace, int] = {}

    def of(self, digests: Sequence[int]) -> list[ChatPlace | None]:
        """Return the place of each message, or None."""
        found: list[ChatPlace | None] = [None] * len(digests)
        if self._digests.size:
            wanted = np.asarray(digests, np.uint64)
            at = np.minimum(np.searchsorted(self._digests, wanted), self._digests.size - 1)
            for number in np.flatnonzero(self._digests[at] == wanted).tolist():
                found[number] = self._places[self._numbers[at[number]]]
        if self._later:
            for number, one in enumerate(digests):
                if found[number] is None and one in self._later:
                    found[number] = self._places[self._later[one]]
        return found

    def add(self, digests: Iterable[int], place: ChatPlace) -> None:
        """Add messages that are not known yet, in a place."""
        number = self._by_place.setdefault(place, len(self._places))
        if number == len(self._places):
            self._places.append(place)
        for one in digests:
            self._later.setdefault(one, number)
            if len(self._later) >= _LATER:
                self._merge()

    def _merge(self) -> None:
        count = len(self._later)
        digests = np.fromiter(self._later, np.uint64, count)
        numbers = np.fromiter(self._later.values(), np.uint32, count)
        self._later = {}
        digests = np.concatenate([self._digests, digests])
        order = np.argsort(digests, kind="stable")
        self._digests = digests[order]
        self._numbers = np.concatenate([self._numbers, numbers])[order]
