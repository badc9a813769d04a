"""Annotated threads from real conversations: those that one person began, one after another.

Where one conversation ends and the next one begins is the annotation. `python -m tests.annotated`
prints how well segments agree with it.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Literal

import numpy as np

from aico_lab.embeddings.encoders.wordllama import WordLlama
from aico_lab.embeddings.segmenting.boundaries import starts_of_blocks, starts_of_segments, weigh
from aico_lab.embeddings.segmenting.parameters import SegmentParameters
from aico_lab.embeddings.segmenting.quality import pk, window_diff
from aico_lab.sources import chitchat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Part = Literal["choosing", "reporting"]
Times = Literal["real", "no pauses between", "none"]

LEAST, MOST = 3, 12  # conversations of a thread; each has at least six messages with text
CHOOSING = 300  # people, the first by the hash of their id; those of the figures are all others
MANY = 10**6


@dataclass(frozen=True)
class Thread:
    """Conversations of one person.

    Attributes:
        starts: The positions of the first messages of its conversations.
        seconds: The times of its messages, in seconds.
        weighed: Their weighed vectors.
    """

    starts: list[int]
    seconds: list[float]
    weighed: NDArray[np.float32]

    def times(self, kind: Times) -> list[float]:
        """The real times; or the median gap between conversations; or one second between all."""
        count = len(self.seconds)
        if kind == "none":
            return [float(at) for at in range(count)]
        gaps = [max(1.0, later - one) for one, later in pairwise(self.seconds)]
        if kind == "no pauses between":
            inner = median(gap for at, gap in enumerate(gaps, 1) if at not in self.starts)
            gaps = [inner if at in self.starts else gap for at, gap in enumerate(gaps, 1)]
        return np.cumsum([0.0, *gaps]).tolist()


def threads(part: Part, limit: int | None = None) -> list[Thread]:
    """Return the threads of a part of the people, who are ordered by the hash of their id."""
    talks: dict[str, list] = {}
    for batch in chitchat.read():
        for one in batch.messages:
            if one.content.strip():
                talks.setdefault(one.conversation_id, []).append(one)
    begun: dict[str, list[list]] = {}
    for talk in talks.values():
        if len(talk) >= 6:
            begun.setdefault(talk[0].user_id, []).append(talk)
    made = []
    in_order = [begun[person] for person in sorted(begun, key=_hash)]
    of_part = in_order[:CHOOSING] if part == "choosing" else in_order[CHOOSING:]
    for own in of_part:
        if len(own) >= LEAST:
            made.append(_thread(sorted(own, key=lambda talk: talk[0].timestamp)[:MOST]))
        if len(made) == limit:
            break
    return made


def _hash(person: str) -> bytes:
    return hashlib.sha256(person.encode()).digest()


def _thread(talks: Sequence[list]) -> Thread:
    messages = [one for talk in talks for one in sorted(talk, key=lambda one: one.timestamp)]
    texts = [one.content for one in messages]
    found, usable = WordLlama().encode_usable(texts)
    vectors = np.zeros((len(texts), WordLlama.dimensions), np.float32)
    vectors[np.array(usable)] = found
    starts = np.cumsum([0, *map(len, talks[:-1])]).tolist()
    seconds = [datetime.fromisoformat(one.timestamp).timestamp() for one in messages]
    return Thread(starts, seconds, weigh(vectors, texts))


def segments(thread: Thread, times: Times, parameters: SegmentParameters) -> list[int]:
    """Return the starts of the segments of a thread."""
    blocks = [*starts_of_blocks(thread.times(times), parameters.pause), len(thread.seconds)]
    return [
        begin + start
        for begin, end in pairwise(blocks)
        for start in starts_of_segments(thread.weighed[begin:end], parameters)
    ]


def agreement(
    some: Sequence[Thread], find: Callable[[Thread], Sequence[int]]
) -> tuple[float, float]:
    """Return the mean WindowDiff and Pk of threads, given what finds their segments."""
    both = [
        (window_diff(one.starts, found, len(one.seconds)), pk(one.starts, found, len(one.seconds)))
        for one in some
        for found in [find(one)]
    ]
    return fmean(one for one, _ in both), fmean(one for _, one in both)


METHODS: dict[str, Callable[[Thread, Times], Sequence[int]]] = {
    "no boundary": lambda _, __: [0],
    "every 60 messages": lambda thread, _: range(0, len(thread.seconds), 60),
    "every 12 messages": lambda thread, _: range(0, len(thread.seconds), 12),
    "pause of 10 minutes": lambda thread, times: starts_of_blocks(thread.times(times), 600),
    "pause and coherence": lambda thread, times: segments(
        thread, times, SegmentParameters(largest=MANY)
    ),
    "and at most 24 messages": lambda thread, times: segments(thread, times, SegmentParameters()),
}


def main() -> None:
    """Write the table of the README, for both parts."""
    for part in ("choosing", "reporting"):
        some = threads(part)
        messages = sum(len(one.seconds) for one in some)
        talks = sum(len(one.starts) for one in some)
        lines = [f"{part}: {len(some)} threads, {talks} conversations, {messages:,} messages"]
        for name, method in METHODS.items():
            shown = [
                "{:.3f} / {:.3f}".format(
                    *agreement(some, lambda one, find=method, times=times: find(one, times))
                )
                for times in ("real", "no pauses between", "none")
            ]
            lines.append(f"| {name} | {' | '.join(shown)} |")
        sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
