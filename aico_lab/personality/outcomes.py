"""The outcomes by which a companion's arms are compared, each with its window and censoring.

An outcome belongs to one decision: it is measured on what the person does in a window that begins
with the companion's message. A decision whose window ends after the last message of the data is
censored: its outcome is unknown, not 0. Without this rule the last days would look worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from aico_lab.constants import MS_PER_DAY, MS_PER_HOUR, MS_PER_MINUTE
from aico_lab.errors import UnknownName
from aico_lab.mart.places import SESSION_GAP_MS

WEEK_MS: Final = 7 * MS_PER_DAY

NEXT: Final = 3
"""The number of a person's messages, before and after a decision, whose content is compared."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A measure of what a person did after a decision.

    Attributes:
        name: Its name, as commands take it.
        definition: The measure in words.
        window_ms: How long after the decision it may be observed.
        censoring: In which cases it is unknown.
        better: Whether more of it is better, or less.
        within: The least and the greatest possible value; None where there is none.
        sql: The value of a decision, from the columns that `aico_lab.personality.log` gathers.
        known: The milliseconds after which it is known, from the same columns; where this is null,
            or beyond the window, it is known when the window is over.
        unit: The unit of amounts, in the plural; empty where there is none.
    """

    name: str
    definition: str
    window_ms: int
    censoring: str
    better: Literal["higher", "lower"]
    within: tuple[float | None, float | None]
    sql: str
    known: str = "NULL"
    unit: str = ""


_ENDS: Final = "its window ends after the data's last message"

OUTCOMES: Final = {
    outcome.name: outcome
    for outcome in (
        Outcome(
            name="satisfaction",
            definition="the mean of the person's feedback on the message, whatever its name, "
            "scaled to 0..1: from the scale that its metadata declare as [lowest, highest], or "
            "else from -1..1; higher counts as better",
            window_ms=WEEK_MS,
            censoring=f"unknown without feedback, or if {_ENDS}; feedback is left out if it is "
            "outside its scale, or dated before the message, or without a valid scale; so is all "
            "without a scale if some of that name is outside -1..1",
            better="higher",
            within=(0, 1),
            sql="rated",
            known="rated_ms",
        ),
        Outcome(
            name="sentiment_change",
            definition=f"the mean sentiment of the person's next {NEXT} messages in the "
            f"conversation within a day, minus that of the last {NEXT} before",
            window_ms=MS_PER_DAY,
            censoring=f"unknown without a scored message on both sides, or if {_ENDS}",
            better="higher",
            within=(-2, 2),
            sql="mood_after - mood_before",
        ),
        Outcome(
            name="reply_latency",
            definition="the hours until the person's next message in the conversation, at most 24: "
            "the restricted mean time (Royston and Parmar 2013)",
            window_ms=MS_PER_DAY,
            censoring=f"unknown if {_ENDS}; without a reply in the window it is 24",
            better="lower",
            within=(0, 24),
            sql=f"least(coalesce(reply_ms, {MS_PER_DAY}), {MS_PER_DAY}) / {MS_PER_HOUR}.0",
            known="reply_ms",
            unit="hours",
        ),
        Outcome(
            name="session_continues",
            definition="1 if the person writes in the conversation within "
            f"{SESSION_GAP_MS // MS_PER_MINUTE} minutes, the longest silence of a session; else 0",
            window_ms=SESSION_GAP_MS,
            censoring=f"unknown if {_ENDS}",
            better="higher",
            within=(0, 1),
            sql=f"CAST(coalesce(reply_ms <= {SESSION_GAP_MS}, false) AS DOUBLE)",
            known="reply_ms",
        ),
        Outcome(
            name="returns_within_day",
            definition="1 if the person writes in a session that begins within a day after the "
            "message, in any conversation, also in another one at the same time; else 0",
            window_ms=MS_PER_DAY,
            censoring=f"unknown if {_ENDS}",
            better="higher",
            within=(0, 1),
            sql=f"CAST(coalesce(return_ms <= {MS_PER_DAY}, false) AS DOUBLE)",
            known="return_ms",
        ),
        Outcome(
            name="returns_within_week",
            definition="1 if the person writes in a session that begins within a week after the "
            "message, in any conversation, also in another one at the same time; else 0",
            window_ms=WEEK_MS,
            censoring=f"unknown if {_ENDS}",
            better="higher",
            within=(0, 1),
            sql=f"CAST(coalesce(return_ms <= {WEEK_MS}, false) AS DOUBLE)",
            known="return_ms",
        ),
        Outcome(
            name="disclosure_length",
            definition=f"the mean number of words of the person's next {NEXT} messages in the "
            "conversation within a day",
            window_ms=MS_PER_DAY,
            censoring=f"unknown without a message whose words can be counted, or if {_ENDS}",
            better="higher",
            within=(0, None),
            sql="words_after",
            unit="words",
        ),
    )
}
"""The outcomes by name."""


def outcome_of(name: str | Outcome) -> Outcome:
    """Return an outcome by its name.

    Raises:
        UnknownName: No outcome has that name.
    """
    if isinstance(name, Outcome):
        return name
    try:
        return OUTCOMES[name]
    except (KeyError, TypeError):
        known = ", ".join(OUTCOMES)
        raise UnknownName(f"No outcome is called {name!r}; these are: {known}.") from None
