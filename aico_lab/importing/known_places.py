"""Remember very many messages, and in which conversation each is, in little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.messages.identity import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aico_lab.importing.same_chat import ChatPlace

_LATER: Final = 50_000
"""Messages in a dict, which takes ten times the memory, before they go into arrays."""


class KnownIds:
    """Ids of messages, by their digests, in 8 bytes for each."""

    def __init__(self) -> None:
        self._digests = np.empty(0, np.uint64)  # sorted
        self._later: set[int] = set()

    def among(self, ids: Iterable[str]) -> set[str]:
        """Return those of some ids that are known."""
        by_digest = {digest(one): one for one in ids}
        found = {by_digest[one] for one in self._later.intersection(by_digest)}
        if self._digests.size and by_digest:
            wanted = np.fromiter(by_digest, np.uint64, len(by_digest))
            at = np.minimum(np.searchsorted(self._digests, wanted), self._digests.size - 1)
            there = wanted[self._digests[at] == wanted]
            found.update(by_digest[one] for one in there.tolist())
        return found

    def add(self, ids: Iterable[str]) -> None:
        """Add ids."""
        self._later.update(map(digest, ids))
        if len(self._later) >= _LATER:
            new = np.sort(np.fromiter(self._later, np.uint64, len(self._later)))
            # Two sorted parts, which a stable sort merges in linear time.
            self._digests = np.sort(np.concatenate([self._digests, new]), kind="stable")
            self._later = set()


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
