"""Sealed reports: who can open them, and that no plain copy is on the disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyrage
import pytest

from aico_lab.adapters import age
from aico_lab.adapters.sealed import left_open
from aico_lab.errors import CorruptDatabase, InvalidValue, NotebookFailed, WrongKey
from aico_lab.home.files import RAM
from aico_lab.reports.sealing import opened_page, publish, workplace
from tests.conftest import plain_text_files
from tests.notebooks import write_notebook

IDENTITY = pyrage.x25519.Identity.generate()
ME = str(IDENTITY.to_public())
OTHER = pyrage.x25519.Identity.generate()
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


@pytest.fixture
def identity(tmp_path) -> Path:
    """A file as age-keygen writes it."""
    file = tmp_path / "me.txt"
    file.write_text(f"# created: 2026-01-01\n# public key: {ME}\n{IDENTITY}\n")
    return file


@pytest.fixture
def sealed(tmp_path) -> Path:
    """The sealed page of a report."""
    with workplace(tmp_path, sealed=True) as private:
        page = private / "mine.html"
        page.write_text("<p>geese</p>")
        return publish(page, tmp_path, [ME, str(OTHER.to_public())])


def test_a_sealed_page_is_opened_in_a_private_place_and_removed_again(sealed, identity):
    assert sealed.name == "mine.html.age"
    assert b"geese" not in sealed.read_bytes()
    with opened_page(sealed, identity) as page:
        assert (page.name, page.read_text()) == ("mine.html", "<p>geese</p>")
        assert page.stat().st_mode & 0o777 == 0o600
        assert page.parent.stat().st_mode & 0o777 == 0o700
        assert not page.is_relative_to(sealed.parent)
        assert page.is_relative_to(RAM) or not RAM.exists()
    assert not page.exists()
    with opened_page(identity, None) as plain:  # any page that is not sealed
        assert plain == identity


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (str(pyrage.x25519.Identity.generate()), WrongKey, "does not open mine.html.age"),
        (f"# public key: {ME}", WrongKey, "has no identity of age"),
        ("AGE-SECRET-KEY-1BROKEN", WrongKey, "has no identity of age"),
        ("", WrongKey, "has no identity of age"),
        (None, WrongKey, "cannot be read .*: check its path"),
    ],
    ids=["another", "no identity", "broken", "empty", "missing"],  # keys differ in each process
)
def test_a_wrong_identity_is_one_sentence(sealed, identity, content, error, words):
    identity.unlink()
    if content is not None:
        identity.write_text(content)
    with pytest.raises(error, match=words) as caught, opened_page(sealed, identity):
        pass
    assert "\n" not in str(caught.value)
    assert "BROKEN" not in str(caught.value)


def test_a_broken_identity_beside_a_good_one_does_no_harm(sealed, identity):
    identity.write_text(f"AGE-SECRET-KEY-1BROKEN\n{IDENTITY}\n")
    with opened_page(sealed, identity) as page:
        assert page.read_text() == "<p>geese</p>"


def test_without_an_identity_and_with_a_damaged_page(sealed, identity):
    with pytest.raises(InvalidValue, match="--identity"), opened_page(sealed, None):
        pass
    content = bytearray(sealed.read_bytes())
    content[-1] ^= 1
    for damaged in (bytes(content), b"<p>", b""):
        sealed.write_bytes(damaged)
        with pytest.raises(CorruptDatabase, match="is damaged"), opened_page(sealed, identity):
            pass


@pytest.mark.parametrize(
    ("recipients", "words"),
    [
        ([], "no recipient"),
        (["age1abc"], "'age1abc' is not a recipient"),
        ([ME, "ada@example.org"], "'ada@example.org' is not"),
        ([str(IDENTITY)], "Recipient 1 is a secret key"),
    ],
    ids=["none", "broken", "one wrong", "secret"],
)
def test_a_wrong_recipient_is_one_sentence(recipients, words):
    with pytest.raises(InvalidValue, match=words) as caught:
        age.read_recipients(recipients)
    assert str(IDENTITY) not in str(caught.value)


@pytest.mark.usefixtures("lab")
def test_a_pipeline_with_a_wrong_recipient_is_found_by_check(cli, tmp_path):
    write_notebook(tmp_path / "own.ipynb", "1")
    job = tmp_path / "job.toml"
    job.write_text("[[steps]]\nrun = 'report'\nname = 'own.ipynb'\nencrypt = ['age1nobody']")
    told = cli("pipeline", "check", str(job))
    assert told.returncode == 1
    assert "Step 1 (report): 'age1nobody' is not a recipient of age" in told.stdout + told.stderr


@LINUX
@pytest.mark.slow
def test_a_sealed_report_leaves_no_plain_text_on_the_disk(tmp_path, homes, identity, in_process):
    """Neither while its cells run, nor of one that fails, nor in a second run that is skipped."""
    seen = tmp_path / "seen.json"
    notebook = write_notebook(
        tmp_path / "mine.ipynb",
        "print('ge' + 'ese')",
        f"""
import json, os, pathlib
home = pathlib.Path(os.environ["AICO_LAB_HOME"])
word = b"ge" + b"ese"
there = [str(file) for file in home.rglob("*") if file.is_file() and word in file.read_bytes()]
pathlib.Path({str(seen)!r}).write_text(json.dumps(there))
if fail: raise ValueError("ge" + "ese")
""",
        parameters="fail: bool = False",
    )
    key = tmp_path / "key"
    with homes.open(tmp_path / "home", messages=2, synced=True, key_file=key) as lab:
        done = lab.reports.run(notebook, encrypt=[ME])
        assert [done.html.name, done.notebook.name] == ["mine.html.age", "mine.ipynb.age"]
        assert lab.reports.show("mine").html == done.html
        assert json.loads(seen.read_text()) == []
        with opened_page(done.html, identity) as page:
            assert "geese" in page.read_text()
        with pytest.raises(NotebookFailed, match=r"cell 3: ValueError; .*mine\.ipynb\.age"):
            lab.reports.run(notebook, {"fail": True}, encrypt=[ME])
        assert plain_text_files(lab.home.path, "geese") == []
        assert left_open() == []

        job = tmp_path / "job.toml"
        step = "[[steps]]\nrun = 'report'\nname = 'mine.ipynb'\non_unchanged = 'skip'\n"
        job.write_text(f"{step}encrypt = ['{ME}']")
        first, again = lab.pipelines.run(job), lab.pipelines.run(job)
        assert [Path(one.path).name for one in again.outputs] == ["mine.html.age", "mine.ipynb.age"]
        assert again.outputs == first.outputs
        job.write_text(f"{step}encrypt = ['{OTHER.to_public()}']")
        others = lab.pipelines.run(job)
        assert others.outputs != first.outputs
    told = in_process(
        *("report", "run", str(notebook), "--encrypt", ME, "--home", str(tmp_path / "home")),
        *("--key-file", str(key)),
    )
    assert told.stdout.strip().endswith("mine.html.age")
