"""Exports in archives: damaged, protected, nested, or made to harm."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from aico_lab.errors import SourceMissing, SourceUnreadable
from aico_lab.sources import SOURCES, recognise
from tests.exported import Read, read
from tests.test_exports import FORMATS, SAMPLES

if TYPE_CHECKING:
    from pathlib import Path

CHATGPT = (SAMPLES / "chatgpt_conversations.json").read_bytes()
WHATSAPP = (SAMPLES / "whatsapp_android_de.txt").read_bytes()
WHOLE = 12
"""Messages of the sample in the tests below, at least."""


def archive(files: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", how) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return data.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def whole() -> Read:
    return read("chatgpt", SAMPLES / "chatgpt_conversations.json")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "export.zip"


def test_junk_of_systems_and_unsafe_names_do_no_harm(path: Path) -> None:
    files = {
        "__MACOSX/._conversations.json": b"\0\5\x16\7",
        ".DS_Store": b"\0\0\0\1Bud1",
        "../../conversations.json": CHATGPT,
        "/etc/..": b"[]",
        "C:\\user.json": b"{}",
    }
    write(path, archive(files))
    assert recognise(path).name == "chatgpt"
    assert read("chatgpt", path).contents == whole().contents


def test_a_name_that_is_no_utf_8_does_no_harm(path: Path) -> None:
    data = archive({"conversations.json": CHATGPT, "\u00e4\u00e4.txt": b"x"})
    write(path, data.replace("\u00e4\u00e4".encode(), b"\xff\xfe\xff\xfe"))
    assert recognise(path).name == "chatgpt"
    assert read("chatgpt", path).contents == whole().contents


def test_a_zip_with_64_bit_sizes_is_read(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w") as packed,
        packed.open("conversations.json", "w", force_zip64=True) as file,
    ):
        file.write(CHATGPT)
    assert read("chatgpt", path).contents == whole().contents


def test_a_file_with_a_password_leaves_the_others(path: Path) -> None:
    data = bytearray(archive({"conversations.json": CHATGPT, "locked.json": b"[]"}))
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[at + 8] |= 1
    write(path, bytes(data))
    assert recognise(path).name == "chatgpt"
    got = read("chatgpt", path)
    assert got.contents == whole().contents
    assert ("locked.json", "it is protected by a password") in {
        (one.where, one.reason) for one in got.rejected
    }
    data[data.index(b"PK\1\2") + 8] |= 1
    write(path, bytes(data))
    with pytest.raises(SourceUnreadable, match="protected by a password"):
        recognise(path)


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_archive_that_was_cut_off_is_read_up_to_its_end(
    path: Path, how: int, *, streamed: bool
) -> None:
    data = io.BytesIO()
    target = _OneWay(data) if streamed else data
    with zipfile.ZipFile(target, "w", how) as packed:  # type: ignore[call-overload]
        packed.writestr("conversations-000.json", CHATGPT)
        packed.writestr("conversations-001.json", CHATGPT.replace(b'"id": "', b'"id": "z'))
    if streamed and how == zipfile.ZIP_STORED:
        return  # the end of such a file cannot be found
    cut = data.getvalue().index(b"conversations-001.json") + 2_000
    write(path, data.getvalue()[:cut])
    assert recognise(path).name == "chatgpt"
    got = read("chatgpt", path)
    assert got.contents[: len(whole().contents)] == whole().contents
    assert "damaged or cut off" in " ".join(one.reason for one in got.rejected)


class _OneWay(io.RawIOBase):
    def __init__(self, target: io.BytesIO) -> None:
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._target.write(data)


@pytest.mark.parametrize("at", [0, 20, 44])
def test_a_damaged_directory_is_replaced_by_the_headers(path: Path, at: int) -> None:
    data = bytearray(archive({"conversations.json": CHATGPT}))
    begin = data.index(b"PK\1\2") + at
    data[begin : begin + 2] = b"\xff\xff"
    write(path, bytes(data))
    assert read("chatgpt", path).contents[:5] == whole().contents[:5]


def test_a_damaged_file_leaves_the_others_and_its_own_beginning(path: Path) -> None:
    files = {
        "conversations-000.json": CHATGPT,
        "conversations-001.json": CHATGPT,
        "user.json": b"{}",
    }
    data = bytearray(archive(files, zipfile.ZIP_STORED))
    data[data.index(b"user.json") + 9] ^= 1
    data[data.index(b"conversations-000.json") + 22 + len(CHATGPT) - 40] ^= 1
    write(path, bytes(data))
    assert recognise(path).name == "chatgpt"
    got = read("chatgpt", path)
    assert got.contents[-len(whole().contents) :] == whole().contents
    assert "damaged in its archive" in " ".join(one.reason for one in got.rejected)


@pytest.mark.parametrize(
    "files",
    [
        {"conversations.json": b"[" + b" " * 80_000_000 + b"]"},
        {f"{number}.json": b" " * 2_000_000 for number in range(50)},
        {"inner.zip": archive({"conversations.json": b"[" + b" " * 80_000_000 + b"]"})},
    ],
    ids=["one large file", "many files", "an archive inside"],
)
def test_an_archive_that_would_fill_the_disk_is_refused(
    path: Path, files: dict[str, bytes]
) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    with pytest.raises(SourceUnreadable, match="would unpack to"):
        recognise(path)


def test_an_archive_whose_directory_lies_about_sizes_is_read_no_further(path: Path) -> None:
    data = bytearray(archive({"conversations.json": CHATGPT}))
    begin = data.index(b"PK\1\2") + 24
    data[begin : begin + 4] = struct.pack("<I", 500)
    write(path, bytes(data))
    assert read("chatgpt", path).rejected


def test_archives_in_an_archive_and_in_a_folder_are_opened(path: Path) -> None:
    inner = archive({"conversations.json": CHATGPT})
    write(path, archive({"part-1.zip": inner, "read me.txt": b"hello"}))
    assert recognise(path).name == "chatgpt"
    assert read("chatgpt", path).contents == whole().contents
    folder = path.parent / "folder"
    folder.mkdir()
    write(folder / "data.zip", inner)
    write(folder / "broken.zip", inner[:50])
    got = read("chatgpt", folder)
    assert got.contents == whole().contents
    assert [one.where for one in got.rejected if "cut off" in one.reason] == ["broken.zip"]


def test_chats_of_whatsapp_in_a_folder_of_archives_keep_their_names(tmp_path: Path) -> None:
    for name in ("Anna", "Bert"):
        said = f"[03.05.25, 21:05:00] {name}: Hi!\n[03.05.25, 21:07:00] Otto Bot: Hello.\n"
        data = archive({"_chat.txt": said.encode(), "photo.jpg": b"\xff\xd8"})
        write(tmp_path / f"WhatsApp Chat - {name}.zip", data)
    got = read("whatsapp", tmp_path, companion=("Otto Bot",))
    assert {one.name for one in got.channels.values()} == {"Anna", "Bert"}


def test_a_database_in_an_archive_in_an_archive_is_read(path: Path) -> None:
    sample = "pigpig_memory.db"
    inner = archive({"data/../..": b"", f"data/{sample}": (SAMPLES / sample).read_bytes()})
    write(path, archive({"inner.zip": inner}))
    assert recognise(path).name == "pigpig"
    assert read("pigpig", path).contents == read("pigpig", SAMPLES / sample).contents


def test_files_of_another_product_in_the_same_archive_are_passed_over(path: Path) -> None:
    samples = ("chatgpt_conversations.json", "telegram_result.json", "whatsapp_android_de.txt")
    files = {f"other/{name}": (SAMPLES / name).read_bytes() for name in samples[1:]}
    write(path, archive({"conversations.json": CHATGPT, **files}))
    with pytest.raises(SourceUnreadable, match="choose one with --as"):
        recognise(path)
    for sample in samples[1:]:
        name, options = FORMATS[sample]
        alone = read(name, SAMPLES / sample, **options)
        assert read(name, path, **options).contents == alone.contents
    assert read("chatgpt", path).contents == whole().contents


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle" / "again").symlink_to(tmp_path / "circle")
    for name in ("pipe", "/dev/zero"):
        with pytest.raises(SourceUnreadable, match="neither a file nor a folder"):
            recognise(tmp_path / name)
    with pytest.raises(SourceMissing):
        recognise(tmp_path / "loop")
    with pytest.raises(SourceUnreadable, match="too long"):
        recognise(tmp_path / ("x" * 5_000))
    write(tmp_path / "circle" / "conversations.json", CHATGPT)
    assert read("chatgpt", tmp_path / "circle").contents == whole().contents
    assert read("chatgpt", tmp_path).contents == whole().contents


@pytest.mark.parametrize("data", [b"", b"\n", b"PK\3\4", b"PK\5\6" + b"\0" * 18, b"\xff\xfe"])
def test_a_file_with_nothing_in_it_is_refused(path: Path, data: bytes) -> None:
    write(path, data)
    with pytest.raises(SourceUnreadable):
        recognise(path)
    for name in {name for name, _ in FORMATS.values()}:
        with contextlib.suppress(SourceUnreadable):  # a damaged archive has rejected parts
            for batch in SOURCES[name].read(path):
                assert batch.rejected
                assert not batch.messages


def test_a_file_that_grows_is_read_as_far_as_it_was_written(tmp_path: Path) -> None:
    path = write(tmp_path / "conversations.json", CHATGPT[:18_000])
    batches = SOURCES["chatgpt"].read(path)
    program = f"open({str(path)!r}, 'ab').write(open({str(path)!r}, 'rb').read()[:100])"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert [message for batch in batches for message in batch.messages]


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("field", [20, 24], ids=["packed", "unpacked"])
def test_one_wrong_size_in_the_directory_loses_one_file(path: Path, how: int, field: int) -> None:
    """Sizes that no data have are damage, not a bomb."""
    data = bytearray(archive({"conversations.json": CHATGPT, "user.json": b"{}" * 500}, how))
    entry = data.rindex(b"PK\1\2")
    struct.pack_into("<I", data, entry + field, 0xF000_0000)
    write(path, bytes(data))
    got = read("chatgpt", path)
    assert got.contents == whole().contents
    assert [one.where for one in got.rejected[len(whole().rejected) :]] == ["user.json"]
