"""The parameters of the segmenter, which are stored with its segments."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

from aico_lab.domain import values
from aico_lab.errors import InvalidValue

SEGMENTER = "pause-coherence-1"
"""The name and version of the segmenter; a new version replaces all segments of the last one."""


@dataclass(frozen=True, slots=True)
class SegmentParameters:
    """The rules for where a segment ends; the README says how the defaults were chosen.

    Attributes:
        pause: Seconds of silence after which a new segment always begins.
        smallest: The minimum number of messages that a drop in coherence leaves on either side;
            only a pause makes smaller segments.
        largest: The maximum number of messages of a segment; a longer one is split where its
            coherence drops most.
        depth: The minimum depth of a drop in coherence at which a segment ends: the mean cosine of
            the block minus the cosine of the messages before and after the gap, 0 to 2.
        window: The number of messages before and after that are compared.
    """

    pause: float = 600.0
    smallest: int = 4
    largest: int = 24
    depth: float = 0.45
    window: int = 6

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InvalidValue: A parameter has the wrong type or is out of range.
        """
        for name, value, least in (("pause", self.pause, 1), ("depth", self.depth, 0)):
            sound = isinstance(value, int | float) and not isinstance(value, bool)
            if not sound or not math.isfinite(value) or value < least:
                raise InvalidValue(f"{name} must be a number, {least} or more.")
        for name, least in (("smallest", 1), ("window", 1), ("largest", 2 * self.smallest)):
            values.whole_number(name, getattr(self, name), least)

    def to_json(self, model: str) -> str:
        """Return the parameters as JSON, with the model on whose vectors coherence depends."""
        numbers = asdict(self) | {"pause": float(self.pause), "depth": float(self.depth)}
        return json.dumps(numbers | {"model": model}, sort_keys=True)


def from_json(text: str | None) -> SegmentParameters | None:
    """Return stored parameters, or None if there are none that this version understands."""
    try:
        stored = json.loads(text or "")
        return SegmentParameters(**{name: stored[name] for name in SegmentParameters.__slots__})
    except (ValueError, TypeError, KeyError, InvalidValue):
        return None
