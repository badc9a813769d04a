"""Keys and messages do not get into reports, however they are quoted, split or spread."""

from __future__ import annotations

import base64
import html
import json
import random
from urllib.parse import quote

import nbformat
import polars as pl
import pytest

from aico_lab.errors import LeakFound, NotebookFailed
from aico_lab.home.keys import Keys
from aico_lab.reports.leaks import KeyCodes, places_of_messages, refuse_leaks
from aico_lab.reports.shown_texts import ShownText, shown_texts
from tests.messages import add, message
from tests.notebooks import write_notebook

WORDS = [first + last for first in ("ba", "ke", "li", "mo", "ru") for last in ("don", "fe", "s'n")]


def sentence(rng: random.Random, count: int = 9) -> str:
    """Return words, one of them a number, with punctuation."""
    words = rng.sample(WORDS, count - 1)
    return f"{words[0].title()}, {' '.join(words[1:4])} {rng.randrange(99)} {' '.join(words[4:])}?!"


def shown(mime: str, value: object) -> dict[str, object]:
    return {"output_type": "display_data", "metadata": {}, "data": {mime: value}}


def page(text: str) -> dict[str, object]:
    return shown("text/html", text)


def rows(text: str) -> list[dict[str, object]]:
    return [{"n": number, "word": word} for number, word in enumerate(text.split())]


def each(text: str, form: str) -> str:
    words = enumerate(map(html.escape, text.split()))
    return "".join(form.format(word=word, n=number) for number, word in words)


WAYS = {
    "printed": lambda text: {"output_type": "stream", "name": "stdout", "text": text.upper()},
    "error": lambda text: {
        "output_type": "error",
        "ename": "E",
        "evalue": "",
        "traceback": [f"\x1b[31m{text}\x1b[0m"],
    },
    "text": lambda text: page(f"<p>{html.escape(text)}</p>"),
    "entities": lambda text: page("".join(f"&#{ord(one)};" for one in text)),
    "emphasis": lambda text: page(f"<b>{text[0]}</b>{text[1:]}"),
    "apart": lambda text: page("<wbr>".join(map(html.escape, text))),
    "soft hyphens": lambda text: shown("text/plain", "\u00ad".join(text)),
    "attribute": lambda text: page(f'<img alt="{html.escape(text)}">'),
    "row": lambda text: page(f"<tr>{each(text, '<td>{word}</td><td>{n}</td>')}</tr>"),
    "column": lambda text: page(each(text, "<tr><td>{word}</td><td>about {n}</td></tr>")),
    "table": lambda text: shown("text/plain", each(text, "│ {word} ┆ about {n} │\n")),
    "json": lambda text: shown("application/json", {"a": [text]}),
    "chart": lambda text: page(f"<script>draw({json.dumps({'data': rows(text)})})</script>"),
    "rows": lambda text: shown("application/vnd.vegalite.v6+json", {"values": rows(text)}),
    "repr": lambda text: shown("text/plain", repr(rows(text))),
    "picture": lambda text: page(f'<img src="data:image/svg+xml,{quote(f"<text>{text}</text>")}">'),
    "labels": lambda text: shown(
        "image/svg+xml", each(text, "<text>{word}</text><text>{n}</text>")
    ),
    "frame": lambda text: page(f"base64,{base64.b64encode(text.encode()).decode()}"),
    "markdown": lambda text: shown("text/markdown", each(text, "**{word}** ")),
    "title": lambda text: shown("text/plain", "") | {"metadata": {"text/html": {"title": text}}},
}


def executed(outputs: list[dict[str, object]]) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell("1", outputs=[nbformat.from_dict(o)]) for o in outputs]
    return nbformat.v4.new_notebook(cells=cells)


def places(texts: list[str], messages: list[str], known: list[str] | None = None) -> list[str]:
    """Return where the texts, each in a place of its number, hold text of messages."""
    parts = [ShownText(str(number), text) for number, text in enumerate(texts)]
    return places_of_messages(parts, [pl.Series(messages, dtype=pl.String)], known or [])


def test_200_planted_sentences_are_found_wherever_they_are():
    rng = random.Random(16)
    texts = [sentence(rng) for _ in range(200)]
    planted = [list(WAYS.values())[number % len(WAYS)](text) for number, text in enumerate(texts)]
    others = [" ".join(rng.sample(WORDS, 12)) for _ in range(500)]
    messages = [f"He said: {text}" for text in texts] + others
    rng.shuffle(messages)
    found = places_of_messages(
        shown_texts(executed(planted), "injected-parameters"),
        [pl.Series(messages[:300]), pl.Series(messages[300:])],
        [],
    )
    assert [int(place.split()[1]) for place in found] == list(range(1, 201))


def test_a_sentence_over_several_outputs_is_found_where_it_begins():
    words = ["one", "of", "them", "said", "nothing", "at", "all", "to", "her"]
    assert places(["", *words], [" ".join(words)]) == ["1", "2"]


def test_eight_words_are_text_and_seven_are_not():
    text = "my cat sleeps on the warm stove today"
    assert places([f"So {text}.", text.rsplit(" ", 1)[0]], [f"And {text} too"]) == ["0"]
    assert places(["11 12 13 14 15 16 17 18 19"], ["11 12 13 14 15 16 17 18 19"]) == []
    assert places([], [text]) == []
    assert places([text], []) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("我昨天和妈妈一起去公园看了很多花", True),
        ("我昨天和妈妈一起去公园看了很多", False),
        ("我昨天用 Python 写了一个小程序给妈妈看", True),
        ("เมื่อวานฉันไปสวนกับแม่", True),
        ("昨日は母と公園で花を見ました。", False),
    ],
)
def test_sixteen_letters_are_text_where_no_blanks_part_words(text, found):
    assert bool(places([f"<b>{text[:5]}</b>{text[5:]}"], [f"{text}!"])) is found


def test_the_bytes_of_a_text_are_read_as_python_writes_them():
    text = "она никому не говорила что боится диких гусей и уток"
    assert places([repr(text.encode())], [text]) == ["0"]
    assert places([repr(text.encode("koi8-r"))], [text]) == []


def test_letters_that_can_be_written_in_two_ways_are_the_same():
    assert places(
        ["Straße ﬁndet cafe\u0301 naïve \uff21\uff22 don\u2019t weiß er"],
        ["STRASSE FINDET CAFÉ NAÏVE AB DON'T WEISS ER"],
    )


def test_what_is_known_may_be_quoted_by_a_message():
    """But only those words: a message that goes on, and is shown further, is a leak."""
    known = "A silence that is longer than the gap ends a session"
    message = f"{known}, and then I went home"
    assert places([known], [message], [known]) == []
    assert places([message], [message], [known]) == ["0"]


KEYS = Keys(bytes(range(100, 132)), bytes(range(7, 39)))
DERIVED = base64.urlsafe_b64decode(KEYS.libsql())


@pytest.mark.parametrize("secret", [KEYS.master, KEYS.credential, KEYS.rocksdb(), DERIVED])
def test_a_key_is_found_in_every_code(secret):
    codes = KeyCodes(KEYS, "a passphrase")
    some = base64.b64encode(b"x" + secret + b"more").decode()
    ways = [
        secret.hex(),
        secret.hex(":").upper(),
        base64.b64encode(secret).decode(),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
        f"data:image/png;base64,{some}",
        base64.b64encode(b"ab" + secret + b"c").decode(),
        html.escape("<br>".join(some)),
        json.dumps(secret.decode("latin-1")),
        repr(list(secret)),
        repr([hex(byte) for byte in secret]),
        f"0x{secret.hex(' ').replace(' ', ', 0x')}",
        str(int.from_bytes(secret)),
        base64.b32encode(secret).decode(),
        f"{secret[:16].hex(' ')}  |defghijk|\n00000010  {secret[16:].hex(' ')}",
        f"<b>{secret.hex()[:9]}</b>{secret.hex()[9:]}",
    ]
    assert [way for way in ways if not codes.are_in(f"It is {way}.")] == []
    assert codes.are_in_file(b"\0" + secret + b"\0")
    assert codes.are_in("a <b>pass</b>phrase")
    assert not codes.are_in("Nothing is here: 0123456789abcdef" + "f" * 64)


def test_a_key_whose_bytes_could_be_text_is_found_as_python_writes_it():
    secret = bytes(range(200, 216)) + "äöü".encode() + bytes(range(10))
    codes = KeyCodes(Keys(secret, KEYS.credential), None)
    ways = [repr(secret), json.dumps([repr(secret)]), ascii(secret.decode("latin-1"))]
    assert [way for way in ways if not codes.are_in(f"It is {way}.")] == []


def test_the_identity_of_the_vectors_is_a_key():
    assert KeyCodes(KEYS, None).are_in(f"# {KEYS.chroma()}")


# Reports and exports of a home


TEXT = "I have never told anybody that I am afraid of geese"


@pytest.fixture(scope="module")
def told(tmp_path_factory, homes):
    """A home whose one message has a text to look for."""
    folder = tmp_path_factory.mktemp("leaks")
    with homes.open(folder / "home", key_file=folder / "key") as lab:
        add(lab.primary, message(0, content=TEXT))
        lab.sync()
        yield lab


SHOW = "from aico_lab import Lab\ntexts = Lab.open().sql('SELECT content FROM raw.messages').pl()\n"


@pytest.mark.slow
def test_a_report_with_text_of_a_message_is_not_published(told, tmp_path):
    """Unless `content` is true; the record says where, and quotes nothing."""
    notebook = write_notebook(
        tmp_path / "mine.ipynb",
        "print('geese')",
        f"{SHOW}print(texts.item())",
        parameters="content: bool = False",
    )
    with pytest.raises(LeakFound) as caught:
        told.reports.run(notebook)
    run = told.reports.show("mine")
    assert str(caught.value) == run.error
    assert run.error == (
        "mine.ipynb is not published, since cell 3 (printed) holds text of a message: change the "
        "notebook, or run it with content = true."
    )
    assert [*(told.home.reports / "mine" / run.run_id).iterdir()] == []
    assert "geese" in told.reports.run(notebook, {"content": True}).html.read_text()


@pytest.mark.slow
def test_an_error_that_quotes_a_message_is_not_told(told, tmp_path):
    """Not even if the name of its class does."""
    notebook = write_notebook(
        tmp_path / "bad.ipynb", f"{SHOW}raise type(texts.item(), (OSError,), {{}})"
    )
    with pytest.raises(NotebookFailed) as caught:
        told.reports.run(notebook)
    assert "geese" not in str(caught.value)
    assert "bad.ipynb stopped in cell 2; nothing of it is kept" in str(caught.value)
    run = told.reports.show("bad")
    assert "geese" not in run.error
    assert [*(told.home.reports / "bad" / run.run_id).iterdir()] == []


@pytest.mark.slow
def test_a_key_that_is_encoded_is_not_published_whatever_content_says(told, tmp_path):
    """A key that is only quoted is replaced by dots before."""
    notebook = write_notebook(
        tmp_path / "key.ipynb",
        "from aico_lab import Lab\n"
        "key = Lab.open().storage.keys.master\nprint(key.hex())\nprint(key.hex(':'))",
        parameters="content: bool = True",
    )
    with pytest.raises(LeakFound, match=r"cell 2 \(printed\) holds a key or the passphrase"):
        told.reports.run(notebook)


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("FROM conversations", "the column message, the column content"),
        ("SELECT unnest(string_split(content, ' ')) AS word FROM conversations", "the column word"),
        ("SELECT [content] AS texts FROM conversations", "the column texts"),
        ("SELECT upper(content) AS a, 1 AS a FROM conversations", "the column a"),
        ("SELECT role, count(*) AS n FROM conversations GROUP BY 1", ""),
    ],
)
def test_an_export_without_content_holds_no_text_of_messages(told, query, holds):
    refuse_leaks(told.storage, told.sql(query), content=True)
    if not holds:
        refuse_leaks(told.storage, told.sql(query), content=False)
        return
    with pytest.raises(LeakFound, match=f"^The rows were not written, since {holds}"):
        refuse_leaks(told.storage, told.sql(query), content=False)


def test_an_export_with_a_key_is_refused(told):
    for value in (told.storage.keys.master.hex(), told.storage.keys.master):
        rows = told.sql("SELECT 1 AS n, ? AS x", [value])
        with pytest.raises(LeakFound, match="the column x holds a key of the home"):
            refuse_leaks(told.storage, rows, content=True)


def test_a_name_is_no_text_of_a_message_in_an_export(told):
    """What is refused as the text of a message is written once a channel has it as its name."""
    with pytest.raises(LeakFound):
        refuse_leaks(told.storage, told.sql("SELECT ? AS name", [TEXT]), content=False)
    try:
        told.primary.execute("UPDATE channels SET name = ?", [TEXT])
        told.sync()
        refuse_leaks(told.storage, told.sql("SELECT name FROM raw.channels"), content=False)
    finally:
        told.primary.execute("UPDATE channels SET name = NULL")
        told.sync()


def test_an_export_step_leaves_the_file_of_the_last_run_if_rows_leak(told, tmp_path):
    job, file = tmp_path / "job.toml", tmp_path / "out.csv"
    file.write_text("before")
    step = f"[[steps]]\nrun = 'export'\nquery = 'FROM conversations'\npath = '{file}'\n"
    job.write_text(f"{step}content = false")
    with pytest.raises(LeakFound, match=r"Step 1 \(export\): The rows were not written"):
        told.pipelines.run(job)
    assert file.read_text() == "before"
    assert told.pipelines.show("job").status == "failed"
    job.write_text(step)
    told.pipelines.run(job)
    assert "geese" in file.read_text()
