"""SQL that measures texts. DuckDB runs it once, in a sync; other engines read the numbers.

A word is a run of letters and digits of any script with their marks, such as the vowel signs of
Hindi or an accent that is a character of its own. Apostrophes and joiners (ZWJ, ZWNJ) between
letters belong to the word, and so do points and commas between digits: "don't", "3.14" and "1,000"
are one word each. Web and e-mail addresses are no words.

Chinese, Japanese, Thai, Lao, Khmer and Burmese put no spaces between words. The number of words of
a text with a character of their scripts is NULL, rather than wrong.

A question is a text with a question mark that ends a sentence: the mark is followed by a space,
punctuation, an emoji, a letter of the scripts above or the end of the text. A mark before any other
letter or digit, or inside an address as in `example.com/what?x=1`, does not count. The full-width
and the Arabic mark always count: no address holds them.
"""

from __future__ import annotations

from typing import Final

APOSTROPHES: Final = "'‘’＇"  # noqa: RUF001

_NO_SPACES: Final = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
UNSEGMENTED: Final = f"[{_NO_SPACES}]"
"""A character of a script that puts no spaces between words."""

_PART: Final = r"(?:(?:\p{L}|\p{N}(?:[.,]\p{N})*)\p{M}*)+"
WORD: Final = rf"{_PART}(?:[{APOSTROPHES}\x{{200C}}\x{{200D}}]{_PART})*"
"""A word of a text without addresses."""

# Letters, roughly: compiling a pattern of the exact classes takes 60 ms in every sync.
_LETTER: Final = "A-Za-z\u00c0-\u1fff\u2c00-\u2dff\u3041-\ud7ff"
_CHARACTER: Final = f"0-9{_LETTER}"
_HOST: Final = rf"[{_CHARACTER}](?:[{_CHARACTER}-]*[{_CHARACTER}])?"
# Punctuation at the end belongs to the sentence, as in programs that make links of addresses.
_REST: Final = rf"[{_CHARACTER}!#$%&'()*+,./:;=?@\[\]_~-]*[{_CHARACTER}#%&+/=_~-]"
ADDRESS: Final = "|".join(
    (
        rf"\b[A-Za-z][A-Za-z0-9+.-]*://(?:{_REST})?",
        rf"\b(?i:www)\.{_REST}",
        rf"[{_CHARACTER}._%+-]+@{_HOST}(?:\.{_HOST})+",
        rf"{_HOST}(?:\.{_HOST})*\.[{_LETTER}]{{2,}}(?:/{_REST}|/)",
        rf"{_HOST}(?:\.{_HOST})*\.(?i:com|edu|gov|net|org)\b(?:[:?#]{_REST})?",
    )
)
"""A web or e-mail address. A name with points, but without a scheme or `www.`, is an address if a
path follows or if it ends in `.com`, `.edu`, `.gov`, `.net` or `.org`."""

QUESTION: Final = (
    r"[？؟]|\?(?:$|[\s\p{Z}\p{Pe}\p{Ps}\p{Pi}\p{Pf}\p{Pd}\p{So}\p{Sk}\p{M}\p{Cf}"  # noqa: RUF001
    rf"!?\"'.,;:…*_~|\x60{_NO_SPACES}])"
)
"""A question mark that ends a sentence, in a text without addresses."""

_PLAIN_WORD: Final = (
    rf"[\p{{L}}\p{{N}}][\p{{L}}\p{{N}}\p{{M}}]*"
    rf"(?:[{APOSTROPHES}][\p{{L}}\p{{N}}][\p{{L}}\p{{N}}\p{{M}}]*)*"
)
_PLAIN: Final = f"^{_PLAIN_WORD}[.,!?]*(?: {_PLAIN_WORD}[.,!?]*)*$"
"""Words with one space between them, as in nine of ten messages. Matching such a text and counting
its spaces takes a third of the time of finding every word."""

MAY_BE: Final = rf"://|[.@][{_CHARACTER}]|(?i:www)\."
"""Found in every address, and in few texts without one."""


def without_addresses(text: str) -> str:
    """Return SQL for a text in Unicode's form NFC, without its web and e-mail addresses."""
    return f"""CASE WHEN regexp_matches({text}, '{MAY_BE}')
        THEN regexp_replace(nfc_normalize({text}), $address${ADDRESS}$address$, ' ', 'g')
        ELSE nfc_normalize({text}) END"""


def words(text: str) -> str:
    """Return SQL for the list of the words of a text without addresses."""
    return f"regexp_extract_all({text}, $word${WORD}$word$)"


MEASURED: Final = f"""
    SELECT
        id,
        CASE
            WHEN strlen(content) > length(content)  -- not ASCII
                AND regexp_matches(content, $script${UNSEGMENTED}$script$) THEN NULL
            WHEN plain THEN strlen(content) - strlen(replace(content, ' ', '')) + 1
            ELSE len({words("bare")})
        END AS n_words,
        length(content) AS n_chars,
        CASE
            WHEN plain THEN contains(content, '?')
            ELSE regexp_matches(bare, $mark${QUESTION}$mark$)
        END AS is_question
    FROM (
        SELECT
            id, content, regexp_matches(content, $plain${_PLAIN}$plain$) AS plain,
            CASE WHEN NOT plain THEN {without_addresses("content")} END AS bare
        FROM rows
    )"""
"""The measures of the messages in `rows`; `n_words` is NULL if words cannot be counted."""
