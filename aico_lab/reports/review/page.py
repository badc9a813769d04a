"""`Review`: the parts of the page, each a fragment that a notebook displays.

::

    review = Review(Lab.open(timezone="Europe/Berlin"), period="2026", companion="Otto")
    review.cover()
    review.numbers()

A part without anything to tell is None, which a notebook does not display. Numbers come from
metrics, under the filters of the person and the period.
"""

from __future__ import annotations

from datetime import date, datetime
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aico_lab.charts.figure import unbroken
from aico_lab.metrics.engine.claims import counted, isolated
from aico_lab.metrics.engine.days import written_day
from aico_lab.reports import document
from aico_lab.reports.first_screen import Fragment
from aico_lab.reports.page import Page
from aico_lab.reports.period_before import read_times
from aico_lab.reports.review import cards, changes, events, moments, pictures, wording
from aico_lab.reports.review.rows import rows_of
from aico_lab.reports.review.span import Span, read_span, year_or_month
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aico_lab.lab import Lab
    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.period import Moment

_CSS: Final = Path(__file__).with_name("review.css").read_text(encoding="utf-8")

SHORT: Final = 20
"""With fewer messages, the page is short: charts and comparisons would tell little."""

_THEMES, _WORDS = 8, 24

_TYPES: Final = {"day": "date", "hour": "integer", "messages": "integer", "times": "integer"}
"""The types of columns of `report.json` that are not text."""


class Review:
    """The review of a person's conversations with a companion.

    Attributes:
        user: The person's id or pseudonym; None if there are no messages.
        span: The period.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        period: str | None = None,
        user: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        companion: str = "",
        content: bool = False,
        names: bool = False,
    ) -> None:
        """Choose person and period.

        Args:
            lab: The opened lab.
            period: A year such as '2026' or a month such as '2026-10'; by default the year of the
                person's last message.
            user: The person, by id or pseudonym; by default who wrote most in the period.
            since: The first day or moment, instead of a period.
            until: The last day or moment, instead of a period.
            companion: The companion's name; empty for 'your companion'.
            content: Whether the page quotes messages.
            names: Whether the person is called by name rather than pseudonym.

        Raises:
            InvalidValue: The period is invalid, or `since` or `until` is given, too.
            UnknownName: No message has the user.
        """
        self._lab = lab
        self._content = content
        self._companion = companion.strip()
        span = read_span(period, since, until)
        bounds = {} if span is None else {"since": span.since, "until": span.until}
        self.user = user or _most_active(lab, bounds) or _most_active(lab, {})
        self.span = span or self._year_of_the_last_message()
        self._filters = {"user": self.user, "since": self.span.since, "until": self.span.until}
        self._page = Page(lab, self.title, names=names, **self._filters)

    @property
    def title(self) -> str:
        """The title of the page, such as 'Your 2026 with Otto'."""
        return f"Your {self.span.name or 'time'} with {self._companion or 'your companion'}"

    def cover(self) -> Fragment:
        """Return the cover: title, the first sentence, and what data the page is about."""
        facts = self._page.header(self._note)
        opening = f"<p>{escape(isolated(self._opening))}</p>"
        made = _part(
            f'<header class="cover"><h1><bdi>{escape(self.title)}</bdi></h1>{opening}</header>'
        )
        return Fragment(made.text + facts.text, facts.title, facts.data)

    def numbers(self) -> Fragment | None:
        """Return one card for each number; None without messages."""
        if not self._n:
            return None
        whose, page = self._companion or "your companion", self._page
        length = None if self._goes_on else self.span.days
        made = [*cards.counts(self._all, whose, length), *cards.records(page)]
        if self._n >= SHORT and self._own_words:
            made.append(cards.words(self._own_words[0]))
        drawn = "".join(card.html() for card in made)
        return _part(
            f'<h2>In numbers</h2><div class="cards">{drawn}</div>',
            document.of_tiles([card.tile() for card in made]),
        )

    def rhythm(self) -> Fragment | None:
        """Return the calendar and the clock; None with few messages."""
        if self._n < SHORT:
            return None
        days = rows_of(self._page, "calendar_days")
        counts = dict(days.select("start", "n").iter_rows())
        shown = [day for day, count in counts.items() if count]
        if not shown:  # all times are before 1990 or in the future
            return None
        hours = moments.exact_hours(self._lab, self._selection)
        has_hours = sum(hours) >= SHORT
        said = wording.when(hours if has_hours else None, changes.weekdays_of(self._page))
        clock = (
            f"<figure>{pictures.clock_of(hours)}<figcaption>The longer a beam, the more messages "
            f"in that hour ({escape(self._lab.timezone)})</figcaption></figure>"
            if has_hours
            else ""
        )
        months = pictures.months_between(*self._ends(min(shown), max(shown)))
        tables = [_table("Your rhythm", "days", ("day", "messages"), counts.items(), said)]
        if has_hours:
            tables.append(
                _table("Your rhythm", "hours", ("hour", "messages"), enumerate(hours), said)
            )
        return _part(
            f'<h2>Your rhythm</h2><p>{escape(said)}</p><div class="rhythm">'
            f"{pictures.calendar_of(counts, months)}{clock}</div>",
            document.marked("answer", tables),
        )

    def talked_about(self) -> Fragment | None:
        """Return the themes, or words if there are none; None with few messages."""
        if self._n < SHORT:
            return None
        if themes := self._themes[:_THEMES]:
            most = themes[0].messages
            rows = "".join(
                f"<li><span>{escape(theme.name)}</span>"
                f'<span class="bar" style="width:{100 * theme.messages / most:.0f}%"></span>'
                f"<span>{counted(theme.messages, 'messages')}</span></li>"
                for theme in themes
            )
            return _part(
                "<h2>What you talked about</h2><p>Your messages, sorted into themes. Each theme is "
                f'named by the words that set it apart.</p><ul class="themes">{rows}</ul>',
                _rows(
                    "What you talked about",
                    "themes",
                    ("theme", "messages"),
                    ((theme.name, theme.messages) for theme in themes),
                ),
            )
        if not self._own_words:
            return None
        words = rows_of(self._page, "frequent_words", role="user", **self._words_of_one)
        if words.is_empty():
            return None
        most = words["n"][0]
        chips = " ".join(
            f'<li style="font-size:{15 + 13 * n / most:.0f}px">{escape(word)}</li>'
            for word, n in words.head(_WORDS).select("word", "n").iter_rows()
        )
        return _part(
            "<h2>What you talked about</h2><p>The words that you used most, the largest most often."
            f'</p><ul class="words">{chips}</ul>',
            _rows(
                "What you talked about",
                "words",
                ("word", "times"),
                words.head(_WORDS).select("word", "n").iter_rows(),
            ),
        )

    def firsts(self) -> Fragment | None:
        """Return firsts and milestones in the order of their days; None without any."""
        if not self._n:
            return None
        themes = [] if self._n < SHORT else self._themes
        found = [
            *self._first_message(),
            *events.first_themes(themes, self._lab.timezone),
            *events.milestones(self._page),
        ]
        if not found:
            return None
        return _part(
            f"<h2>Firsts and milestones</h2>{events.timeline(found)}",
            _rows(
                "Firsts and milestones",
                "firsts",
                ("day", "event"),
                sorted((str(one.day), one.text) for one in found),
            ),
        )

    def changes(self) -> Fragment | None:
        """Return sentences on changes within the period and since the one before; None if few."""
        if self._n < SHORT:
            return None
        said = changes.between_halves(self._page, self._selection, self._all)
        if not self._goes_on:
            said = [*changes.since_before(self._page, self._n, self.span), *said]
        if not said:
            return None
        rows = "".join(f"<li>{escape(unbroken(sentence))}</li>" for sentence in said)
        return _part(
            f'<h2>What changed</h2><ul class="changes">{rows}</ul>',
            _rows("What changed", "changes", ("change",), ((sentence,) for sentence in said)),
        )

    def kind_moment(self) -> Fragment | None:
        """Return the kindest exchange; None without content, or if there is none."""
        if not self._content or not self._n:
            return None
        found = moments.kindest_exchange(self._lab, self._selection)
        if found is None:
            return None
        day = written_day(self._local(found.ts_ms).date())
        name = escape(isolated(self._companion or "Your companion"))
        return _part(
            f'<h2>A kind moment</h2><div class="exchange"><p class="when">{day}</p>'
            f'<blockquote class="mine"><cite>You</cite><bdi>{escape(found.message)}</bdi>'
            f"</blockquote><blockquote><cite>{name}</cite><bdi>{escape(found.reply)}</bdi>"
            '</blockquote></div><p class="small">How it was chosen: by a list of English words '
            "with a good or a bad meaning, or by the scores that came with the messages. Of all "
            "your messages with a reply in which each of you speaks to the other and nothing bad "
            f"is said, none of more than {moments.LONGEST} characters, this is the pair in which "
            "both sides sound most positive.</p>",
            _rows(
                "A kind moment",
                "kind_moment",
                ("day", "message", "reply"),
                [(self._local(found.ts_ms).date(), found.message, found.reply)],
            ),
        )

    def about(self) -> Fragment | None:
        """Return how the page was made; None without messages."""
        if not self._n:
            return None
        quoted = (
            "The page quotes messages: think of that before you pass it on."
            if self._content
            else "The page quotes no message."
        )
        return _part(
            '<p class="small end">A conversation ends with a silence of more than half an hour. A '
            "night ends at 5 in the morning. Days and hours are those of "
            f"{escape(self._lab.timezone)}. {quoted}</p>"
        )

    # What the page is about

    @cached_property
    def _overview(self) -> Answer:
        return self._page.ask("overview")  # type: ignore[return-value]

    @cached_property
    def _all(self) -> dict[str, Any]:
        """The row of `overview`; empty without messages."""
        rows = self._overview.pl()
        return rows.row(0, named=True) if self.user and rows.height else {}

    @property
    def _n(self) -> int:
        return int(self._all.get("n", 0))

    @cached_property
    def _selection(self) -> moments.OwnMessages:
        since, until = self._overview.filters.bounds(self._recent_ms)
        (user,) = self._overview.filters.users
        return moments.OwnMessages(user, since, until)

    @cached_property
    def _recent_ms(self) -> int:
        return read_times(self._lab, self._overview.filters).recent_ms or 0

    @cached_property
    def _own_words(self) -> tuple[int, int] | None:
        found = moments.own_words(self._lab, self._selection)
        return found if found and found[0] else None

    @cached_property
    def _themes(self) -> list[moments.OwnTheme]:
        return moments.themes_of(self._lab, self._selection)

    @cached_property
    def _is_alone(self) -> bool:
        found = self._lab.metrics.overview().pl()
        return found.height == 1 and found["people"][0] <= 1

    @property
    def _words_of_one(self) -> dict[str, int]:
        """The filter with which words of a single person are shown; else nobody's are."""
        return {"min_people": 1} if self._content or self._is_alone else {}

    def _year_of_the_last_message(self) -> Span:
        if self.user is None:
            return Span(None, None)
        last = self._lab.metrics.overview(user=self.user).pl()["last_day"]
        days = self._lab.metrics.calendar_days(user=self.user).pl()
        written = days.filter(days["n"] > 0)["start"]
        day = written.max() if len(written) else last.max()
        return year_or_month(day.year) if isinstance(day, date) else Span(None, None)

    @property
    def _note(self) -> str:
        said = []
        if self.user is None or not self._n:
            return ""
        if not self._is_alone:
            said.append("This page is about one person and the companion, and about nobody else.")
        relation = self._lab.sql(
            "SELECT count(*) FROM mart.messages JOIN raw.channels USING (channel_id) "
            "WHERE kind = 'chitchat' AND user_id = ?",
            [self._selection.user],
        )
        row = relation.fetchone() if relation is not None else None
        if row and row[0]:
            said.append(
                "These conversations are from the Chit-Chat data set: both sides are people, and "
                "the partners stand in for the companion."
            )
        return " ".join(said)

    @property
    def _opening(self) -> str:
        """The first sentence."""
        when = f"in {self.span.name}" if self.span.name else "in these days"
        if self.user is None:
            return "There are no messages of a person yet."
        if not self._n:
            return f"You did not write to each other {when}."
        messages, days = counted(self._n, "messages"), counted(self._all["days"], "days")
        so_far = " so far" if self._goes_on else ""
        if self._n < SHORT:
            return (
                f"A small beginning{so_far}: {messages} on {days}. Every long conversation started "
                "like this."
            )
        return f"{messages} on {days}{so_far}. Here is what they looked like."

    @property
    def _goes_on(self) -> bool:
        """Whether the year or month is not over."""
        if not self.span.name:
            return False
        return str(self.span.until) >= datetime.now(get_zone(self._lab.timezone)).date().isoformat()

    def _local(self, ts_ms: int) -> datetime:
        return to_local(ts_ms, get_zone(self._lab.timezone))

    def _ends(self, first: date, last: date) -> tuple[date, date]:
        """Return the first and the last day of the calendar: the whole year, if it is one."""
        if not self.span.name:
            return first, last
        begin, end = (date.fromisoformat(str(day)) for day in (self.span.since, self.span.until))
        return begin, last if self._goes_on else end

    def _first_message(self) -> list[events.Event]:
        found = moments.first_message(self._lab, self._selection)
        if found is None:
            return []
        quoted = found[1] if self._content else ""
        return [events.first_message(self._local(found[0]).date(), quoted, self.span)]


def _part(html: str, data: Mapping[str, Any] | None = None) -> Fragment:
    return Fragment(
        f'<style>{_CSS}</style><div class="aico-lab-review mathjax_ignore">{html}</div>',
        data=data or {},
    )


def _rows(
    heading: str, name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> dict[str, Any]:
    """Return the rows of a section, as the metadata of its HTML."""
    return document.marked("answer", _table(heading, name, columns, rows))


def _table(
    heading: str,
    name: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    sentence: str = "",
) -> dict[str, Any]:
    types = {column: _TYPES.get(column, "text") for column in columns}
    return document.of_section(heading, types, rows, name=name, sentence=sentence)


def _most_active(lab: Lab, bounds: dict[str, Any]) -> str | None:
    """Return the pseudonym of the person who wrote most; None if nobody is named."""
    rows: Sequence[str] = lab.metrics.people(top=1, **bounds).pl()["person"].to_list()
    return rows[0] if rows else None
