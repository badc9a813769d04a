"""Nothing that somebody said lies in a file in plain text: while a home is used, killed, closed."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aico_lab.home.files import RAM
from aico_lab.lab import Lab
from tests.canaries import MARK, PLACES, found_in, sentence

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /dev/shm")
def test_no_path_leaves_plain_text(tmp_path):
    """One process takes every path; others look into its files where it waits, and after a kill."""
    inputs, person = tmp_path / "inputs", tmp_path / "person"
    searched = [tmp_path / "work", person, RAM]
    for folder in (inputs, *searched[:2], person / "tmp"):
        folder.mkdir(exist_ok=True)
    home = tmp_path / "work" / "home"
    variables = {"HOME": str(person), "TMPDIR": str(person / "tmp"), "PYTHONPATH": str(ROOT)}
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        variables[name] = str(person / name)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.canaries", str(home), str(inputs)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, env=os.environ | variables,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        for place in PLACES:
            line = process.stdout.readline().strip()
            if line != place:
                process.kill()
                raise AssertionError((place, process.communicate()[1]))
            assert found_in(searched) == [], f"while it is {place}"
            if place != PLACES[-1]:
                process.stdin.write("\n")
                process.stdin.flush()
        process.kill()
    assert found_in(searched) == [], "after it was killed"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with Lab.open(home) as lab:
            lab.sync()
            text = lab.sql("SELECT message FROM conversations WHERE message LIKE '%jsonl%'")
            assert text.fetchone() == (sentence("jsonl"),)
    assert found_in(searched) == [], "after it was closed"
    assert found_in([inputs]), "the search finds what was imported"


@pytest.mark.parametrize("padding", range(3))
def test_the_search_finds_a_text_in_every_form(tmp_path, padding):
    text = "-" * padding + sentence("some path")
    for name, content in {
        "plain": text.encode(),
        "windows": text.encode("utf-16-le"),
        "network": text.encode("utf-16-be"),
        "coded": base64.b64encode(text.encode()),
        "in json": json.dumps({"a": base64.b64encode(text.encode()).decode()}).encode(),
    }.items():
        (tmp_path / name).write_bytes(os.urandom(1000) + content + os.urandom(1000))
        assert found_in([tmp_path]) == [tmp_path / name], name
        (tmp_path / name).unlink()
    (tmp_path / "other").write_bytes(MARK[:-1].encode())
    assert found_in([tmp_path]) == []
