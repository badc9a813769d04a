"""Remove names, numbers and addresses from texts by rules.

Rules cannot know every name. `RECALL` is what they remove of a sample of invented messages in five
languages, labelled by the authors of the rules (`tests/redaction_sample.py`); a test compares both.
In real messages it may be lower. Every digit is removed, with the letters that touch it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final

from aico_lab.messages.language import language_of
from aico_lab.privacy.name_words import ALSO_WORDS, GIVEN_NAMES, NOT_AFTER_CUES, USUAL_CAPITALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RECALL: Final = {"NAME": (52, 61), "NUMBER": (21, 22), "ADDRESS": (6, 6)}
"""Of each kind in the labelled sample, how many the rules remove, and how many there are."""

_ADDRESS: Final = re.compile(
    r"""(?P<address>
        (?<![a-z])[a-z][a-z0-9+.-]{0,30}+://\S+ | www\.\S+      # with a scheme
      | (?<![\w.+-])[\w.+-]++@[\w-]+(?:\.[\w-]+)+              # e-mail
      | (?<![\w@])@\w[\w.]+                                     # an account
      | (?<![\w.-])(?:[\w-]+\.)+(?:com|org|net|edu|gov|io|app|dev|me|de|at|ch|fr|es|it|uk|eu|nl)
        (?:/\S*)?(?![\w.]*\w)                                   # a host
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_DIGITS: Final = r"\d\u00b2\u00b3\u00b9\u2070-\u2089\u2460-\u249b\u24ea-\u24ff\u2776-\u2793"
# Repetitions are possessive or have a fixed beginning, so that no text takes quadratic time.
_NUMBER: Final = re.compile(
    rf"(?<!\w)[+(]?[^\W{_DIGITS}]*+[{_DIGITS}]\w*+(?:[\s().:/,-]++[{_DIGITS}]\w*+)*"
)
_NO_BLANKS: Final = (  # scripts without blanks between words, or with particles behind names
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    r"\u3005\u3007\u3041-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # Japanese syllables
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\uac00-\ud7af"  # Han, Korean
)
_RUN: Final = re.compile(f"[{_NO_BLANKS}]{{2,}}")
_SURNAME_FIRST: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]{3}")
_ALPHANUMERIC: Final = re.compile(rf"[^\W_{_NO_BLANKS}]++")
# Marks that are part of a word: of Hebrew, Arabic and the scripts of India.
_MARKS: Final = r"\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0971-\u0dff"
_LETTERS: Final = rf"[^\W\d_{_NO_BLANKS}]++(?:[{_MARKS}]++[^\W\d_{_NO_BLANKS}]*+)*+"
_WORD: Final = re.compile(rf"{_LETTERS}(?:['\u2019-]{_LETTERS})*+|[{_NO_BLANKS}]++")
_JOINT: Final = re.compile(r"(['\u2019-])")
_SENTENCE: Final = re.compile(r"(?:^|[.!?…:;\n\"“”«»()*_]|[-–—]\s)\W*\Z")  # noqa: RUF001

_CUES: Final = re.compile(
    r"""\b(?: my\ (?:\w+\ )?name(?:'s|\ is) | (?:is|are|was|'s|s)\ (?:called|named)
        | call\ (?:me|her|him)
        | named
        | mr | mrs | ms | miss | dr | prof | sir | aunt | uncle | auntie | grandma | grandpa
        | mein\ name\ ist | ich\ hei(?:ß|ss)e | hei(?:ß|ss)t | namens | herrn?
        | frau | tante | onkel | oma | opa
        | liebe[rs]? | je\ m['\u2019]appelle | s['\u2019]appelle | madame | monsieur
        | me\ llamo | se\ llama
        | señora? | mi\ chiamo | si\ chiama | signora? | dear | hi | hey | hello | hallo | love
    )\.?,?\s+\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_CERTAIN_CUES: Final = re.compile(
    r"(?:name(?:'s| is)|(?:called|named)|call (?:me|her|him)|name ist|hei(?:ß|ss)[et]|namens"
    r"|appelle|llamo|llama|chiamo|chiama)\s+\Z",
    re.IGNORECASE,
)
_CONTEXT: Final = 60
"""The most characters before a word by which it is told whether it is a name."""

_SHORTEST: Final = 2  # letters of a known name
_SHORTEST_PART: Final = 3  # of what a hyphen or an apostrophe divides, as the `al` of `Al-Sayed`

_SHORTEST_STEM: Final = 4
"""The fewest letters of a known name that is also found with an ending."""

_LONGEST_ENDING: Final = 3
"""The most letters of an ending.

If all given names of `name_words` were people of the home, 3 would remove 0.02 % of the 2.5 million
words of the demo that are other words (`jeans`, `lottery`), and 4 would remove `christmas` too.
"""

_RUSSIAN: Final = {
    "а": "ы и е у ой ою ам ами ах",  # noqa: RUF001
    "я": "и е ю ей ею ям ями ях",  # noqa: RUF001
    "й": "я ю ем е ого ому им ом",  # noqa: RUF001
    "ь": "я ю ем е и ью",  # noqa: RUF001
}
"""Endings that take the place of the last letter of a name."""


class TextRedactor:
    """Replaces names, numbers and addresses in texts by their kinds in brackets.

    Attributes:
        removed: How many of each kind were replaced.
    """

    def __init__(self, names: Iterable[str] = (), ids: Iterable[str] = ()) -> None:
        """Make a redactor.

        Args:
            names: Names that are known, such as those of the people of a home; each word is one.
            ids: Ids of people and places, which are removed as a whole.
        """
        names, ids = list(names), [_normal(one.strip().lstrip("@")) for one in ids]
        known = frozenset(form for name in names for form in _forms(name))
        self._known = known | (GIVEN_NAMES - ALSO_WORDS)
        self._stems = frozenset(
            name for name in known if len(name) >= _SHORTEST_STEM and name not in ALSO_WORDS
        )
        self._ids = frozenset(ids)
        self._id_places = _places_by_word(self._ids)
        self._unspaced = frozenset(
            one for name in names for one in _unspaced(unicodedata.normalize("NFC", name))
        ) | {id_ for id_ in ids if _RUN.fullmatch(id_)}
        self._lengths = _lengths_by_start(self._unspaced)
        self._mixed = frozenset(
            id_ for id_ in self._ids - self._unspaced
            if _RUN.search(id_) and not _ALPHANUMERIC.search(id_)
        )  # fmt: skip
        self._mixed_lengths = _lengths_by_start(self._mixed)
        self.removed: Counter[str] = Counter()

    def redact(self, text: str) -> str:
        """Return a text without names, numbers and addresses."""
        text = unicodedata.normalize("NFC", text)
        text = self._replace(_ADDRESS, "ADDRESS", text)
        text = self._without_ids(text) if self._id_places else text
        if self._mixed:
            text = self._without(text, self._mixed, self._mixed_lengths)
        if self._unspaced:
            text = _RUN.sub(lambda run: self._without(run[0], self._unspaced, self._lengths), text)
        text = self._without_names(text)
        return self._replace(_NUMBER, "NUMBER", text)

    def _replace(self, pattern: re.Pattern[str], kind: str, text: str) -> str:
        text, count = pattern.subn(f"[{kind}]", text)
        self.removed[kind] += count
        return text

    def _without_ids(self, text: str) -> str:
        folded = _normal(text)
        found: list[str] = []
        end = 0
        for word in _ALPHANUMERIC.finditer(folded):
            for lead, length in self._id_places.get(word[0], ()):
                start = word.start() - lead
                stop = start + length
                if (
                    start >= end
                    and folded[start:stop] in self._ids
                    # `room-3` is not in `room-35`.
                    and not _ALPHANUMERIC.fullmatch(folded[stop - 1 : stop + 1].ljust(2))
                ):
                    found += [text[end:start], "[NAME]"]
                    end = stop
                    break
        self.removed["NAME"] += len(found) // 2
        return "".join([*found, text[end:]])

    def _without(self, text: str, names: frozenset[str], lengths: dict[str, list[int]]) -> str:
        """Return a text without some names, wherever they are; `lengths` is by their starts."""
        found: list[str] = []
        end = at = 0
        while at < len(text):
            possible = lengths.get(text[at], ())
            length = next((one for one in possible if text[at : at + one] in names), 0)
            if length:
                found += [text[end:at], "[NAME]"]
                end = at + length
            at += length or 1
        self.removed["NAME"] += len(found) // 2
        return "".join([*found, text[end:]])

    def _without_names(self, text: str) -> str:
        # Where every noun has a capital, a capital says nothing.
        capitals_count = language_of(text) not in {"de", "lb"} and not text.isupper()
        found: list[str] = []
        end = 0
        for word in _WORD.finditer(text):
            before = text[end : word.start()]
            follows = bool(found) and found[-1].endswith("[NAME]") and not before.strip(" -'\u2019")
            if before.endswith("[") and word[0] in ("ADDRESS", "NAME"):  # a mark of ours
                kept = word[0]
            elif (known := self._without_known(word[0])) is not None:
                self.removed["NAME"] += 1
                kept = known
            elif self._is_name(
                word[0],
                text[max(0, word.start() - _CONTEXT) : word.start()],
                capitals_count=capitals_count,
                follows=follows,
            ):
                kept = self._named(word[0])
            else:
                kept = word[0]
            found += [before, kept]
            end = word.end()
        return "".join([*found, text[end:]])

    def _without_known(self, word: str) -> str | None:
        """Return a word without the known names in it, as `[NAME]-style`; None if it has none."""
        folded = word.casefold()
        if folded in self._known:
            return "[NAME]"
        if folded[-1] == "s" and folded[:-1] in self._stems:  # a genitive: no surname follows
            return "[NAME]s"
        parts = _JOINT.split(word)
        if not any(map(self._is_known, parts)):
            return None
        # The other part of `Zedekia-Quorn` is a name as well.
        hidden = [i for i, one in enumerate(parts) if one[0].isupper() or self._is_known(one)]
        return "".join([*parts[: hidden[0]], "[NAME]", *parts[hidden[-1] + 1 :]])

    def _is_known(self, part: str) -> bool:
        return any(
            one in self._known
            or any(one[:-length] in self._stems for length in range(1, _LONGEST_ENDING + 1))
            for one in (part.casefold(), *map(str.casefold, _parts(part)))
        )

    def _named(self, word: str) -> str:
        self.removed["NAME"] += 1
        return "[NAME]'s" if word.endswith(("'s", "\u2019s")) else "[NAME]"

    def _is_name(self, word: str, before: str, *, capitals_count: bool, follows: bool) -> bool:
        bare = re.sub(r"['\u2019]s?$", "", word).casefold()
        capital = word[0].isupper()
        inside = not _SENTENCE.search(before[-12:])
        if bare in GIVEN_NAMES and capital and inside:  # a word as well
            return True
        if bare in USUAL_CAPITALS or bare in NOT_AFTER_CUES:
            return False
        tail = before[-40:]
        if _CERTAIN_CUES.search(tail) or (capital and _CUES.search(tail)):
            return True
        shouted = word.isupper() and len(word) > 1
        return capital and not shouted and (follows or (capitals_count and inside))


def _normal(id_: str) -> str:
    """Return an id, or a text that may have ids, in a form of the same length without capitals."""
    id_ = unicodedata.normalize("NFC", id_)
    folded = id_.casefold()
    return folded if len(folded) == len(id_) else "".join(one.casefold()[0] for one in id_)


def _forms(name: str) -> Iterator[str]:
    """Yield what is removed for a name: its words, their parts, these joined, Russian cases."""
    # Only then without capitals: that of the Turkish İ is an i and a dot, which is no letter.
    words = [one.casefold() for one in _WORD.findall(unicodedata.normalize("NFC", name))]
    words += [one.replace("i\u0307", "i") for one in words if "i\u0307" in one]
    parts = [_JOINT.split(word)[::2] for word in words]
    joined = map("".join, (*parts, chain(*parts)))
    forms = [
        *(word for word in words if len(word) >= _SHORTEST),
        *(part for part in chain(*parts) if len(part) >= _SHORTEST_PART),
        *(word for word in joined if len(word) >= _SHORTEST_STEM),
    ]
    for form in forms:
        if form not in NOT_AFTER_CUES:
            yield form
            yield from (form[:-1] + ending for ending in _RUSSIAN.get(form[-1], "").split())
            if form in ALSO_WORDS:
                yield f"{form}s"


def _unspaced(name: str) -> Iterator[str]:
    """Yield the parts of a name in scripts without blanks, also without the surname before it."""
    for run in _RUN.findall(name):
        yield run
        if _SURNAME_FIRST.fullmatch(run):
            yield run[1:]


def _places_by_word(ids: Iterable[str]) -> dict[str, list[tuple[int, int]]]:
    """Return for the first word of ids what precedes it and how long they are, the longest first.

    A text is searched for ids at its words only, in linear time for any number of ids.
    """
    places = defaultdict(set)
    for id_ in ids:
        if word := _ALPHANUMERIC.search(id_):
            places[word[0]].add((word.start(), len(id_)))
    return {word: sorted(of, key=lambda place: -place[1]) for word, of in places.items()}


def _lengths_by_start(names: Iterable[str]) -> dict[str, list[int]]:
    """Return the lengths of names by their first characters, the longest first."""
    lengths = defaultdict(set)
    for name in names:
        lengths[name[0]].add(len(name))
    return {start: sorted(of, reverse=True) for start, of in lengths.items()}


def _parts(word: str) -> list[str]:
    """Return the parts of a word such as `AdaLovelace`."""
    starts = [i for i in range(1, len(word)) if word[i].isupper() and word[i - 1].islower()]
    return [word[i:j] for i, j in pairwise([0, *starts, len(word)])] if starts else []
