"""Checks of what messages hold: texts, scores, reply links, people, scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.importing.rescoring import SPACES, count_due
from aico_lab.metrics.engine.claims import counted
from aico_lab.reports.quality.checks import DataCheck, found, rows_from, share

if TYPE_CHECKING:
    from aico_lab.lab import Lab

SCRIPTS: Final = (
    "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Han", "Hiragana", "Katakana",
    "Hangul", "Thai",
)  # fmt: skip
"""The scripts of Unicode that are counted by name."""

_PATTERNS: Final = {script: rf"\p{{{script}}}" for script in SCRIPTS}
_OTHER: Final = rf"[^\P{{L}}\p{{Common}}\p{{Inherited}}{''.join(_PATTERNS.values())}]"
"""A letter of another script."""

_HALF: Final = 0.5


def empty_and_unnamed(lab: Lab) -> list[DataCheck]:
    """Return the checks of messages without text and without a person."""
    ((n, blank, nobody),) = rows_from(
        lab,
        "SELECT count(*), count(*) FILTER (trim(t.content, ?) = ''), "
        "count(*) FILTER (m.user_id IS NULL) FROM mart.messages m JOIN mart.texts t USING (id)",
        [SPACES],
    )
    blank_text = f"{counted(blank, 'messages')} of {n:,}, such as pictures"
    nobody_text = f"{counted(nobody, 'messages')} of {n:,} without a person"
    return [
        found(
            "Messages without text",
            blank,
            "look",
            blank_text,
            command="aico-lab metrics show extras",
        ),
        found(
            "Messages without a person",
            nobody,
            "look",
            nobody_text,
            command='aico-lab sql "FROM mart.messages WHERE user_id IS NULL"',
        ),
    ]


def unscored(lab: Lab) -> list[DataCheck]:
    """Return the messages without a sentiment score, by the reason."""
    ((language, total),) = rows_from(
        lab,
        "SELECT count(*) FILTER (sentiment_source LIKE 'language:%' AND sentiment_score IS NULL), "
        "count(*) FROM raw.messages WHERE role <> 'system'",
    )
    due = count_due(lab.primary)
    return [
        found(
            "Messages to be scored",
            due,
            "act",
            f"{counted(due, 'messages')} without a score, or with one of earlier rules",
            command="aico-lab rescore",
        ),
        found(
            "Messages of other languages",
            language,
            "look",
            f"{share(language, total)} of all messages have no score, since VADER knows English "
            "only",
            command="aico-lab metrics show languages",
        ),
    ]


def reply_links(lab: Lab) -> list[DataCheck]:
    """Return the replies whose message is not stored, and the share of messages with a link."""
    ((n, linked, dangling),) = rows_from(
        lab,
        """
        SELECT count(*), count(*) FILTER (r.reply_to IS NOT NULL),
            count(*) FILTER (r.reply_to IS NOT NULL AND a.message_id IS NULL)
        FROM raw.messages r LEFT JOIN (SELECT DISTINCT message_id FROM raw.messages) a
            ON a.message_id = r.reply_to
        WHERE r.role <> 'system'""",
    )
    without = n - linked
    text = f"{share(without, n)} of all messages name no message that they answer"
    links = DataCheck("Reply links", "fine", f"{text}: the one before counts", without)
    return [
        found(
            "Replies to messages that are not stored",
            dangling,
            "look",
            f"{counted(dangling, 'replies')} of {linked:,}",
            command="aico-lab import FILE",
        ),
        links,
    ]


def count_scripts(lab: Lab) -> dict[str, int]:
    """Return the number of messages with letters of each script, the most first."""
    patterns = _PATTERNS | {"other scripts": _OTHER}
    counts = ", ".join(
        f"count(*) FILTER (regexp_matches(content, '{pattern}'))" for pattern in patterns.values()
    )
    numbers = rows_from(lab, f"SELECT {counts} FROM mart.texts")[0]
    found_in = {script: int(n) for script, n in zip(patterns, numbers, strict=True) if n}
    return dict(sorted(found_in.items(), key=lambda pair: -pair[1]))


def scripts(lab: Lab) -> list[DataCheck]:
    """Return the mix of scripts; a few messages of another one may be damaged text."""
    ((total,),) = rows_from(lab, "SELECT count(*) FROM mart.texts")
    ((damaged,),) = rows_from(
        lab, "SELECT count(*) FROM mart.texts WHERE contains(content, chr(65533))"
    )
    counts = count_scripts(lab)
    said = ", ".join(f"{script} in {share(n, total)}" for script, n in counts.items())
    return [
        DataCheck("Scripts", "fine", said or "no letters"),
        found(
            "Damaged characters",
            damaged,
            "look",
            f"{counted(damaged, 'messages')} with a character that could not be decoded",
            command="aico-lab import FILE",
        ),
    ]
