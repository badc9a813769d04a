"""People's own documents: how they are cut into chunks, added, replaced and removed."""

from __future__ import annotations

import io
import json
import os
import zlib
from typing import TYPE_CHECKING

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.errors import SourceMissing, UnknownName
from aico_lab.knowledge import chunks, reading
from tests.costs import takes_about

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.lab import Lab

GUIDE = """Before any heading.

# Plants

Water them on Mondays.

## The fern

It likes shade.

```
# not a heading
```

Bread
=====

Use rye flour.
"""


def pdf(*pages: str) -> bytes:
    """Return a PDF with a line of text on each page, written by hand."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, text in enumerate(pages):
        drawn = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET" if text else ""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode()
    return out + (
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    )


def bomb() -> bytes:
    """Return a small PDF with a page of 100 MB."""
    plain = pdf("x" * 10)
    packed = zlib.compress(b" " * 100_000_000)
    start = plain.index(b"<< /Length", plain.index(b"/Contents"))
    return (
        plain[:start]
        + f"<< /Filter /FlateDecode /Length {len(packed)} >>\nstream\n".encode()
        + packed
        + plain[plain.index(b"\nendstream", start) :]
    )


def encrypted(content: bytes, password: str) -> bytes:
    writer, out = pypdf.PdfWriter(clone_from=io.BytesIO(content)), io.BytesIO()
    writer.encrypt(password, algorithm="AES-256")
    writer.write(out)
    return out.getvalue()


def test_a_chunk_of_markdown_knows_the_headings_above_it():
    """Lines in a fence are none."""
    assert list(chunks.of_markdown(GUIDE)) == [
        (None, "Before any heading."),
        ("Plants", "Water them on Mondays."),
        ("Plants > The fern", "It likes shade.\n\n```\n# not a heading\n```"),
        ("Bread", "Use rye flour."),
    ]
    assert list(chunks.of_markdown("# A\ntext\n```\n# never closed")) == [
        ("A", "text\n```\n# never closed")
    ]


@given(st.text(alphabet="ab .\n#=`\t", max_size=4_000))
def test_every_word_is_in_a_chunk_that_is_short_enough(text: str):
    """Of text; Markdown loses its headings only, and never fails."""
    cut = list(chunks.of_text(text))
    assert all(0 < len(one.content) <= chunks.LONGEST for one in cut)
    assert "".join("".join(one.content for one in cut).split()) == "".join(text.split())
    for one in chunks.of_markdown(text):
        assert 0 < len(one.content) <= chunks.LONGEST
        assert one.content.strip()


def test_long_paragraphs_are_cut_at_sentences_and_long_words_anywhere():
    """No chunk is longer than the longest."""
    sentence = "This is a sentence of some length."
    cut = list(chunks.of_text(" ".join([sentence] * 100)))
    assert len(cut) > 3
    assert all(one.content.endswith("length.") for one in cut)
    assert [len(one.content) for one in chunks.of_text("x" * 2_500)] == [1_000, 1_000, 500]


def test_documents_are_added_once_and_replaced_when_they_change(lab: Lab, tmp_path: Path):
    """Of a changed document, only the chunks that differ are written."""
    file = tmp_path / "guide.md"
    file.write_text(GUIDE)
    assert [(one.outcome, one.chunks) for one in lab.knowledge.add(file)] == [("added", 4)]
    copy = tmp_path / "copy.md"
    copy.write_text(GUIDE)
    before = lab.primary.fetch_all("SELECT max(seq) FROM change_log")
    assert [one.outcome for one in lab.knowledge.add(file, copy)] == ["unchanged"] * 2
    assert lab.primary.fetch_all("SELECT max(seq) FROM change_log") == before
    file.write_text(GUIDE.replace("rye", "wheat"))
    assert [(one.outcome, one.chunks) for one in lab.knowledge.add(file)] == [("replaced", 4)]
    changes = lab.primary.fetch_all(
        "SELECT op FROM change_log WHERE seq > ? AND table_name = 'knowledge_chunks' ORDER BY seq",
        before[0],
    )
    assert changes == [("delete",), ("insert",)]
    contents = lab.primary.fetch_all("SELECT content FROM knowledge_chunks ORDER BY position")
    assert contents[-1] == ("Use wheat flour.",)
    (document,) = lab.knowledge.list()
    assert (document.name, document.kind, document.chunks) == ("guide.md", "markdown", 4)
    lab.knowledge.remove("guide.md")
    assert lab.knowledge.list() == []
    assert lab.primary.fetch_all("SELECT count(*) FROM knowledge_chunks") == [(0,)]
    with pytest.raises(UnknownName, match=r"There is no document 'guide\.md'"):
        lab.knowledge.remove("guide.md")


def test_a_file_has_its_own_new_text_even_if_another_file_has_the_same(lab: Lab, tmp_path: Path):
    """So that its old text is not found any more, and the new one is when the other is removed."""
    first, second = tmp_path / "a.md", tmp_path / "b.md"
    first.write_text("Striped zebras.")
    second.write_text("Tall giraffes.")
    lab.knowledge.add(first, second)
    first.write_text("Tall giraffes.")
    assert [one.outcome for one in lab.knowledge.add(first)] == ["replaced"]
    assert [one.outcome for one in lab.knowledge.add(first)] == ["unchanged"]
    assert not lab.search("zebras", mode="keyword", source="knowledge")
    lab.knowledge.remove("b.md")
    (passage,) = lab.search("giraffes", mode="keyword", source="knowledge")
    assert passage.metadata["document"] == "a.md"


def test_a_file_that_took_the_name_of_another_does_not_hide_it(lab: Lab, tmp_path: Path):
    """The other one has a new name, and its text is found there; a moved file is the same one."""
    old, new = tmp_path / "b.md", tmp_path / "a.md"
    old.write_text("Striped zebras.")
    lab.knowledge.add(old)
    old.rename(new)
    assert [one.outcome for one in lab.knowledge.add(new)] == ["unchanged"]
    old.write_text("Tall giraffes.")
    assert [one.outcome for one in lab.knowledge.add(tmp_path)] == ["added", "replaced"]
    for word in ("zebras", "giraffes"):
        assert len(lab.search(word, mode="keyword", source="knowledge")) == 1


@pytest.mark.parametrize(
    "text",
    ["# x" + " " * 400_000 + "y", "# x" + " #" * 200_000 + " y", "a\n" + "=" * 400_000 + " =",
     "x" * 3_000_000, "a. " * 100_000],
)  # fmt: skip
def test_long_lines_take_no_longer_than_as_many_short_ones(text: str):
    """Of headings, of their underlines, and of text."""
    with takes_about(0.3):
        list(chunks.of_markdown(text))


def test_the_number_signs_that_close_a_heading_are_no_part_of_it():
    """As Markdown has it."""
    for line, title in (
        ("# Plants #", "Plants"), ("## C# ##", "C#"), ("# C#", "C#"), ("#\tPlants\t#\t", "Plants"),
        ("# #", None), ("#", None), ("#Plants", None),
    ):  # fmt: skip
        assert list(chunks.of_markdown(f"{line}\n\nfern"))[-1].place == title


def test_only_regular_files_are_read(lab: Lab, tmp_path: Path):
    """Whoever opens a named pipe waits until another program writes to it."""
    os.mkfifo(tmp_path / "a.md")
    (tmp_path / "b.md").mkdir()
    (tmp_path / "b.md" / "c.md").write_text("fern")
    bad, good = lab.knowledge.add(tmp_path / "a.md", tmp_path / "b.md")
    assert (bad.error, good.outcome) == (
        "a.md is not a regular file: copy its content into one.", "added",
    )  # fmt: skip


def test_pdfs_are_read_by_page(lab: Lab, tmp_path: Path):
    """Also one that only restricts what its readers may do."""
    content = pdf("The fern likes shade", "", "Use rye flour")
    (tmp_path / "a.pdf").write_bytes(content)
    (tmp_path / "b.PDF").write_bytes(encrypted(content, ""))
    assert [one.chunks for one in lab.knowledge.add(tmp_path)] == [2, 2]
    places = lab.primary.fetch_all("SELECT DISTINCT place, content FROM knowledge_chunks")
    assert sorted(places) == [("page 1", "The fern likes shade"), ("page 3", "Use rye flour")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pdf", encrypted(pdf("secret"), "swordfish"), "a.pdf is encrypted: save a copy"),
        ("a.pdf", pdf("text")[:200], "a.pdf is damaged: export the PDF again."),
        ("a.pdf", b"no PDF at all", "a.pdf is damaged: export the PDF again."),
        ("a.pdf", bomb(), "a.pdf holds more than can be read"),
        ("a.pdf", pdf("", ""), "a.pdf has pages without text, such as scanned ones"),
        ("a.pdf", pdf(), "a.pdf has no pages"),
        ("a.txt", b"", "a.txt is empty"),
        ("a.md", b" \n\n", "a.md is empty"),
        ("a.md", b"# Only\n## headings\n", "a.md has no text"),
        ("a.txt", b"PK\x03\x04\0\0", "a.txt is not text"),
        ("a.docx", b"PK", "a.docx is neither Markdown (.md), text (.txt) nor PDF (.pdf)"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(lab, tmp_path, name, content, said):
    """It keeps no other out, and nothing of it is stored."""
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text("a good one")
    bad, good = lab.knowledge.add(tmp_path / name, tmp_path / "good.txt")
    assert (bad.outcome, good.outcome) == ("failed", "added")
    assert bad.error.startswith(said)
    assert bad.error.count(". ") == 0
    assert [one.name for one in lab.knowledge.list()] == ["good.txt"]


def test_what_is_not_there_is_said(lab: Lab, tmp_path: Path):
    """A missing file, and a folder without documents, which keeps the other files out, too."""
    (missing,) = lab.knowledge.add(tmp_path / "none.md")
    assert missing.error.startswith(f"There is no file {tmp_path / 'none.md'}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "guide.md").write_text(GUIDE)
    with pytest.raises(SourceMissing, match=r"There is no \.md, \.txt or \.pdf file"):
        lab.knowledge.add(tmp_path / "guide.md", tmp_path / "empty")
    assert lab.knowledge.list() == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_texts_of_several_encodings_are_read(encoding: str):
    """Line ends of Windows become those of the database."""
    found = reading.read("a.txt", "text", "Käse\r\n\r\n“Brot”".encode(encoding))
    assert found == [(None, "Käse\n\n“Brot”")]


@pytest.mark.usefixtures("lab")
def test_the_command_adds_lists_and_removes(cli, tmp_path: Path):
    """A file that cannot be read makes it end with 1."""
    (tmp_path / "a.md").write_text(GUIDE)
    (tmp_path / "b.pdf").write_bytes(b"x")
    done = cli("knowledge", "add", str(tmp_path / "a.md"), str(tmp_path / "b.pdf"))
    assert done.returncode == 1
    assert "added      a.md, 4 passages" in done.stdout
    (tmp_path / "c.txt").write_text("fern")
    assert "c.txt, 1 passage\n" in cli("knowledge", "add", str(tmp_path / "c.txt")).stdout
    cli("knowledge", "remove", "c.txt")
    assert done.stderr == "b.pdf is damaged: export the PDF again.\n"
    (listed,) = json.loads(cli("knowledge", "list", "--json").stdout)
    assert listed["name"] == "a.md"
    assert cli("knowledge", "remove", listed["document_id"]).returncode == 0
    assert "There is no document" in cli("knowledge", "list").stdout
