"""Remove names, numbers and addresses from texts by rules.

Rules cannot know every name. `RECALL` is what they remove of a sample of invented messages in five
languages, labelled by the authors of the rules (`tests/redaction_sample.py`); a test compares both.
In real messages it may be lower. Every digit is removed, with the letters that touch it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from aico_lab.messages.language import language_of
from aico_lab.privacy.name_words import ALSO_WORDS, GIVEN_NAMES, NOT_AFTER_CUES, USUAL_CAPITALS

if TYPE_CHECKING:
    from collections.abc import Iterable

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
_ID: Final = re.compile(r"(?<![\w.@-])\w[\w.@-]*+")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
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


class TextRedactor:
    """Replaces names, numbers and addresses in texts by their kinds in brackets.

    Attributes:
        removed: How many of each kind were replaced.
    """

    def __init__(self, names: Iterable[str] = (), ids: Iterable[str] = ()) -> None:
        """Make a redactor.

        Args:
            names: Names that are known, such as those of the people of a home; each word is one.
            ids: Ids of people, which are removed as a whole.
        """
        self._ids = frozenset(_normal(one) for one in ids)
        self._known = frozenset(
            word.casefold()
            for name in names
            for word in _WORD.findall(unicodedata.normalize("NFC", name))
            if len(word) >= _SHORTEST and word.casefold() not in NOT_AFTER_CUES
        )
        self.removed: Counter[str] = Counter()

    @cached_property
    def _names(self) -> frozenset[str]:
        return self._known | GIVEN_NAMES

    def redact(self, text: str) -> str:
        """Return a text without names, numbers and addresses."""
        text = unicodedata.normalize("NFC", text)
        text = self._replace(_ADDRESS, "ADDRESS", text)
        text = _ID.sub(self._without_id, text) if self._ids else text
        text = self._without_names(text)
        return self._replace(_NUMBER, "NUMBER", text)

    def _replace(self, pattern: re.Pattern[str], kind: str, text: str) -> str:
        text, count = pattern.subn(f"[{kind}]", text)
        self.removed[kind] += count
        return text

    def _without_id(self, match: re.Match[str]) -> str:
        bare = match[0].rstrip(".@-")
        if _normal(bare) not in self._ids:
            return match[0]
        self.removed["NAME"] += 1
        return f"[NAME]{match[0][len(bare) :]}"

    def _without_names(self, text: str) -> str:
        # Where every noun has a capital, a capital says nothing.
        capitals_count = language_of(text) not in {"de", "lb"} and not text.isupper()
        found: list[str] = []
        end = 0
        for word in _WORD.finditer(text):
            before = text[end : word.start()]
            follows = bool(found) and found[-1] == "[NAME]" and not before.strip(" -'\u2019")
            is_name = self._is_name(
                word[0],
                text[max(0, word.start() - _CONTEXT) : word.start()],
                capitals_count=capitals_count,
                follows=follows,
            )
            found += [before, self._named(word[0]) if is_name else word[0]]
            end = word.end()
        return "".join([*found, text[end:]])

    def _named(self, word: str) -> str:
        self.removed["NAME"] += 1
        return "[NAME]'s" if word.endswith(("'s", "\u2019s")) else "[NAME]"

    def _is_name(self, word: str, before: str, *, capitals_count: bool, follows: bool) -> bool:
        if before.endswith("[") and word in ("ADDRESS", "NAME"):  # a mark of ours
            return False
        bare = re.sub(r"['\u2019]s?$", "", word).casefold()
        capital = word[0].isupper()
        inside = not _SENTENCE.search(before[-12:])
        if bare in self._known or any(part.casefold() in self._known for part in _parts(word)):
            return True
        if bare in GIVEN_NAMES and (bare not in ALSO_WORDS or (capital and inside)):
            return True
        if bare in USUAL_CAPITALS or bare in NOT_AFTER_CUES:
            return False
        tail = before[-40:]
        if _CERTAIN_CUES.search(tail) or (capital and _CUES.search(tail)):
            return True
        shouted = word.isupper() and len(word) > 1
        return capital and not shouted and (follows or (capitals_count and inside))


def _normal(id_: str) -> str:
    return unicodedata.normalize("NFC", id_).casefold()


def _parts(word: str) -> list[str]:
    """Return the parts of a word such as `AdaLovelace`."""
    starts = [i for i in range(1, len(word)) if word[i].isupper() and word[i - 1].islower()]
    return [word[i:j] for i, j in pairwise([0, *starts, len(word)])] if starts else []
