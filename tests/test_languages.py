"""What is a language, what is none, and which one it is."""

from __future__ import annotations

import pytest

from aico_lab.messages.language import UNKNOWN, is_foreign_script, language_of
from tests.chat_lines import LINES, lines_of
from tests.costs import takes_about


@pytest.mark.parametrize("language", LINES)
def test_languages_are_told_from_a_conversation(language):
    assert language_of(" ".join(lines_of(language))) == language


@pytest.mark.parametrize(
    "text",
    [
        "haha hahaha lol", "hahahahahahahahaha hehehehe jajajajaja", "ha " * 10,
        "a" * 24, "sooooooooooooooooooooooooo", "ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ", "哈哈哈哈哈哈哈哈",
        "ههههههههههه",  # noqa: RUF001
        "```x = 1```", "```\nfor line in lines:\n    print(line)\n```", "`for i in range(10)` lol",
        "https://www.example.com/some/long/path-of-words", "somebody.with.a.name@example.com",
        "d41d8cd98f00b204e9800998ecf8427e", "dGhpcyBpcyBub3QgYSBsYW5ndWFnZSBhdCBhbGwK",
        "asdfghjkl qwertyuiop", "12345 67890 :-) !!! 1234567890", "😀😀😀😀😀😀😀😀😀", "ok", "",
    ],
)  # fmt: skip
def test_what_is_no_language_has_none(text):
    assert language_of(text) == UNKNOWN


def test_what_stands_beside_laughter_and_code_counts():
    assert language_of("haha das ist ja wirklich lustig gewesen `x = 1`") == "de"


def test_pidgin_english_is_taken_for_english():
    """Else "I live in Nigeria" would be."""
    assert language_of("i am an international student from Nigeria") == "en"


@pytest.mark.parametrize("letter", ["a", "`", "a1", "x://", "ab", "@", "ä", "哈"])
def test_long_texts_are_told_in_no_time(letter):
    with takes_about(0.5):
        language_of(letter * 500_000)


def test_a_script_that_english_has_not_is_seen():
    for text in ("Привет", "你好吗 ok", "שלום", "γειά", "नमस्ते"):
        assert is_foreign_script(text)
    for text in ("hello", "Tiếng Việt", "café", "❤️😀", "", "ok 你", "naïve Ω"):
        assert not is_foreign_script(text)
