"""Words and questions of every script: DuckDB counts what plain Python counts."""

from __future__ import annotations

import functools
import itertools
import unicodedata

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aico_lab.adapters.duckdb import execute_with
from aico_lab.mart.text import MEASURED
from tests import effort, text_by_hand
from tests.messages import add, at, message

WORDS = {
    "मैं हिंदी बोलता हूँ": 4,
    "আমি বাংলা বলি": 3,
    "நான் தமிழ் பேசுகிறேன்": 3,
    "السَّلَامُ عَلَيْكُمْ": 2,
    "שָׁלוֹם לְךָ": 2,
    unicodedata.normalize("NFD", "café naïve"): 2,
    unicodedata.normalize("NFD", "Tiếng Việt rất đẹp"): 4,
    "می\u200cخواهم بروم": 2,  # noqa: RUF001
    "क्\u200dष": 1,
    "나는 한국어를 해요": 3,
    "Ich hätte gern Süßes": 4,
    "I don’t, don't, don‘t and don＇t": 6,  # noqa: RUF001
    "3.14 is 1,000.50 or 1.2.3": 5,
    "end.Start, 5. and .5": 5,
    "v1.2 U.S.A.": 4,
    "❤️ 👩\u200d👩\u200d👧 1️⃣ x": 2,
    "see https://x.y/?a=b&c=(d), www.ab.cd or me.too@ab.co.uk": 2,
    "example.com/what?x=1 amazon.com! Müller.de/straße": 0,
    "ftp://a.b": 0,
    "3.50/person and/or him@home": 6,
    "http://": 0,
    "snake_case": 2,
    "": 0,
    "…": 0,
}

QUESTIONS = {
    "“How are you?”": True,
    "How are you?😀": True,
    "你好吗？我很好。": True,  # noqa: RUF001
    "你好吗?我很好。": True,
    "**Ready?**": True,
    "really?...": True,
    "Ready?—yes": True,
    "What?,": True,
    "ready?": True,
    "(ready?) go": True,
    "„Bereit?“ sagte er": True,
    "«Prêt ?»": True,
    "מה שלומך?\u200f": True,
    "كيف حالك؟بخير": True,
    "well?(you know)": True,
    "||spoiler?||": True,
    "See https://x.y/?": True,
    "example.com/what?😀": True,
    "https://x.y/?a=b": False,
    "https://x.y/?_a=b, see": False,
    "example.com/what?x=1": False,
    "example.com?_x=1": False,
    "(https://x.y/?utm_a=1&b=?-2)": False,
    "don?t": False,
    "fine.": False,
    "": False,
}


@functools.cache
def in_memory():
    """Return the one DuckDB of all tests here: to make it takes longer than to count words."""
    return duckdb.connect(":memory:")


def measure(*texts):
    """Return number of words, and whether it is a question, of each text."""
    rows = pa.table({"id": range(len(texts)), "content": pa.array(texts, pa.string())})
    return execute_with(
        in_memory(), f"SELECT n_words, is_question FROM ({MEASURED}) ORDER BY id", rows=rows
    ).fetchall()


@functools.cache
def counted():
    """Measure all of these texts at once, and return what was found of each."""
    texts = [*WORDS, *QUESTIONS]
    return dict(zip(texts, measure(*texts), strict=True))


@pytest.mark.parametrize(("text", "count"), WORDS.items())
def test_words_of_many_scripts_are_counted(text, count):
    assert counted()[text][0] == count
    assert len(text_by_hand.words_of(text)) == count


@pytest.mark.parametrize(
    "text",
    [
        "你好吗",
        "日本語を話します",
        "カタカナ",
        "ภาษาไทย",
        "ພາສາລາວ",
        "ភាសាខ្មែរ",
        "မြန်မာ",
        "I said 你好 to you",
    ],
)
def test_words_are_not_counted_where_no_spaces_are_between_them(text):
    assert measure(text)[0][0] is None
    assert text_by_hand.words_of(text) is None


@pytest.mark.parametrize(("text", "asks"), QUESTIONS.items())
def test_a_question_mark_counts_where_it_ends_something(text, asks):
    assert counted()[text][1] is asks
    assert text_by_hand.is_question(text) is asks


PIECES = [
    "word", "It's", "don’t", "‘", "＇", "'", "’", "naïve", "cafe\u0301", "e\u0323\u0302", "\u0301",  # noqa: RUF001
    "हिंदी", "ि", "क्", "\u200d", "\u200c", "می", "عَلَيْكُمْ", "שָׁלוֹם", "한국", "Привет", "жизнь",
    "你好", "ありがとう", "カ", "ไทย", "ລາວ", "ខ្មែរ", "မြန်", "3", "14", "१", "Ⅷ", "½", "_", "-",
    ".", ",", "!", "?", "？", "؟", "…", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "(", ")", "“",  # noqa: RUF001
    "”", "»", "—", "*", "~", ";", ":", "/", "@", "=", "&", "%", "#", "+", "|", "`", "😀", "❤",
    "\ufe0f", "👩", "🏽", "https://", "www.", "x.y", ".com", "example.com/", "?a=b",
    "me@x.yz", "\u200f",
]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=effort.examples(40))
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=20))
@example(list(WORDS))
@example(list(QUESTIONS))
def test_duckdb_counts_what_plain_python_counts(texts):
    """And equally in both normal forms of Unicode."""
    expected = []
    for text in texts:
        found = text_by_hand.words_of(text)
        count = None if found is None else len(found)
        expected.append((count, text_by_hand.is_question(text)))
    forms = [[unicodedata.normalize(form, text) for text in texts] for form in ("NFC", "NFD")]
    assert measure(*texts, *itertools.chain(*forms)) == 3 * expected


@pytest.mark.slow
def test_a_sync_counts_the_messages_whose_words_cannot_be_told(lab):
    """In every table, beside the words of the others; and lists no word of them."""
    contents = ["Das hier", "你好吗？我很好。", "मैं ठीक हूँ", "ภาษาไทย ok"]  # noqa: RUF001
    add(lab.primary, *[
        message(i, content=text, role="user", timestamp=at(i)) for i, text in enumerate(contents)
    ])  # fmt: skip
    lab.sync()
    assert lab.sql("SELECT n_words FROM mart.messages ORDER BY id").fetchall() == [
        (2,), (None,), (3,), (None,),
    ]  # fmt: skip
    for table in ("turns", "sessions", "daily"):
        found = lab.sql(f"SELECT n_messages, n_words, n_unsegmented FROM mart.{table}").fetchall()
        assert found == [(4, 5, 2)]
    assert lab.sql("SELECT n_user_words FROM mart.sessions").fetchall() == [(5,)]
    words = lab.sql("SELECT word FROM mart.words ORDER BY id, position").fetchall()
    assert [word for (word,) in words] == ["das", "hier", "मैं", "ठीक", "हूँ"]
    lab.primary.execute("UPDATE messages SET content = '你好' WHERE content <> '你好'")
    lab.sync()
    assert lab.sql("SELECT n_words, n_unsegmented FROM mart.turns").fetchall() == [(0, 4)]


@pytest.mark.slow
def test_equal_words_of_both_normal_forms_are_one(lab):
    """And whichever apostrophe they have; addresses are none of them."""
    text = "Café don’t https://x.y/z 1,000"  # noqa: RUF001
    add(
        lab.primary,
        message(0, content=text),
        message(1, content=unicodedata.normalize("NFD", text)),
    )
    lab.sync()
    words = lab.sql("SELECT word, count(*) FROM mart.words GROUP BY 1 ORDER BY 1").fetchall()
    assert words == [("1,000", 2), ("café", 2), ("don't", 2)]
