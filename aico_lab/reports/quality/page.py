"""`Quality`: the sections of the page, each a table of checks, and their summary."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.charts.figure import unbroken
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.claims import counted, isolated
from aico_lab.reports import document
from aico_lab.reports.first_screen import Fragment, Tile
from aico_lab.reports.quality import content, current, gaps, suspicious
from aico_lab.reports.quality.checks import VERDICTS, DataCheck

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.lab import Lab

_CSS: Final = Path(__file__).with_name("quality.css").read_text(encoding="utf-8")

_COLUMNS: Final = {
    "check": "text", "verdict": "text", "finding": "text", "rows": "integer", "command": "text",
}  # fmt: skip


class Quality:
    """The checks of all data of a lab."""

    def __init__(
        self,
        lab: Lab,
        *,
        prove: bool = True,
        stale_days: int = 7,
        minutes: int = 10,
        names: bool = False,
    ) -> None:
        """Choose what is checked, and how strictly.

        Args:
            lab: The opened lab.
            prove: Whether every value of the snapshot is compared with the primary database.
            stale_days: The age, in days, from which the last message is called old.
            minutes: The most minutes from one of several equal messages to the next.
            names: Whether people are called by their names rather than pseudonyms.

        Raises:
            InvalidValue: The age or the minutes are below 1.
        """
        if stale_days < 1 or minutes < 1:
            raise InvalidValue("stale_days and duplicate_minutes must be at least 1.")
        self._lab = lab
        self._prove = prove
        self._stale_days = stale_days
        self._minutes = minutes
        self._names = names

    @cached_property
    def sections(self) -> dict[str, list[DataCheck]]:
        """All checks, by the heading of their section."""
        lab = self._lab
        return {
            "Complete and current": [
                *(current.proof_of_sync(lab) if self._prove else ()),
                *current.freshness(lab, stale_days=self._stale_days),
                *current.quarantine(lab),
                *current.imports(lab),
                *current.missing(lab),
            ],
            "Gaps": [*gaps.missing_months(lab), *gaps.silences(lab, names=self._names)],
            "Duplicates": suspicious.duplicates(lab, minutes=self._minutes),
            "Times": suspicious.times(lab),
            "Texts, scores and links": [
                *content.empty_and_unnamed(lab),
                *content.unscored(lab),
                *content.reply_links(lab),
                *content.scripts(lab),
            ],
        }

    def summary(self) -> Fragment:
        """Return how many checks need attention, and those that are to be acted on."""
        checks = [check for those in self.sections.values() for check in those]
        n = Counter(check.verdict for check in checks)
        if n["act"]:
            sentence = f"{counted(n['act'], 'checks')} of {len(checks)} to act on"
            sentence += f", {n['look']} to look at." if n["look"] else "."
        elif n["look"]:
            sentence = (
                f"Nothing to act on; {counted(n['look'], 'checks')} of {len(checks)} to look at."
            )
        else:
            sentence = f"All {len(checks)} checks are fine."
        urgent = "".join(
            f"<li>{escape(unbroken(isolated(f'{check.name}: {check.finding}')))}</li>"
            for check in checks
            if check.verdict == "act"
        )
        meanings = "".join(
            f"<li>{_badge(verdict)} {escape(meaning)}</li>" for verdict, meaning in VERDICTS.items()
        )
        listed = f'<ul class="urgent">{urgent}</ul>' if urgent else ""
        return _part(
            f'<p class="summary">{escape(sentence)}</p>{listed}'
            f'<ul class="meanings">{meanings}</ul>',
            document.of_tiles([_count(verdict, n[verdict]) for verdict in VERDICTS]),
        )

    def section(self, heading: str) -> Fragment:
        """Return a section with the table of its checks.

        Args:
            heading: A heading of `sections`.
        """
        rows = "".join(map(_row, self.sections[heading]))
        return _part(
            f"<h2>{escape(heading)}</h2><table><thead><tr><th>Check</th><th>Verdict</th>"
            f"<th>Finding</th><th>Rows</th></tr></thead><tbody>{rows}</tbody></table>",
            document.marked(
                "answer",
                document.of_section(
                    heading,
                    _COLUMNS,
                    (
                        (one.name, one.verdict, one.finding, one.rows, one.command)
                        for one in self.sections[heading]
                    ),
                ),
            ),
        )


def _count(verdict: str, number: int) -> Tile:
    return Tile(
        f"checks: {verdict}", f"{number}", number=number, is_count=True, key=f"checks_{verdict}"
    )


def _row(check: DataCheck) -> str:
    command = f"<code>{escape(check.command)}</code>" if check.command else ""
    if check.verdict == "fine":
        command = ""
    rows = "" if check.rows is None else f"{check.rows:,}"
    return (
        f'<tr class="{check.verdict}"><th>{escape(check.name)}</th><td>{_badge(check.verdict)}</td>'
        f"<td>{escape(unbroken(isolated(check.finding)))}{command}</td>"
        f'<td class="rows">{rows}</td></tr>'
    )


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict}">{verdict}</span>'


def _part(html: str, data: Mapping[str, Any]) -> Fragment:
    body = f'<div class="aico-lab-quality mathjax_ignore">{html}</div>'
    return Fragment(f"<style>{_CSS}</style>{body}", data=data)
