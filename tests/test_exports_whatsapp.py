"""Chats as WhatsApp writes them, in the forms and languages of phones."""

# ruff: noqa: RUF001 the letters of other languages are meant
# ruff: noqa: DTZ001 times of phones have no zone

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from aico_lab.errors import SourceUnreadable
from aico_lab.sources import recognise
from aico_lab.sources.exports.engine.conversation import Options
from aico_lab.zones import get_zone
from tests.exported import Read, read

LRM, NNBSP, NBSP = "\u200e", "\u202f", "\u00a0"


def chat(text: str, name: str = "Otto.txt", **options: Any) -> Read:
    """Return what is read from the text of a chat."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(text.encode("utf-8"))
        return read("whatsapp", path, **{"companion": ("Otto",), **options})


def android(*texts: str) -> str:
    """Return a chat of Otto's with some texts, as Android writes it."""
    return "".join(
        f"13.05.25, 21:{number:02} - Otto: {text}\n" for number, text in enumerate(texts)
    )


def iphone(*texts: str) -> str:
    """Return a chat of Otto's with some texts, as an iPhone writes it."""
    return "".join(
        f"[13.05.25, 21:{number:02}:00] Otto: {text}\r\n" for number, text in enumerate(texts)
    )


@pytest.mark.parametrize(
    ("begin", "time"),
    [
        ("13/05/25, 21:07 - ", "2025-05-13T21:07"),
        ("13/5/2025 21:07 - ", "2025-05-13T21:07"),
        ("5/13/25, 9:07 PM - ", "2025-05-13T21:07"),
        (f"5/13/25, 9:07{NNBSP}PM - ", "2025-05-13T21:07"),
        (f"13/5/25, 9:07 p.{NBSP}m. - ", "2025-05-13T21:07"),
        (f"13/5/25, 9:07{NNBSP}a.{NNBSP}m. - ", "2025-05-13T09:07"),
        ("13/05/25, 12:07 am - ", "2025-05-13T00:07"),
        ("13/05/25, 12:07 pm - ", "2025-05-13T12:07"),
        ("13.5.2025 klo 21.07 - ", "2025-05-13T21:07"),
        ("13.05.25 21.07 - ", "2025-05-13T21:07"),
        ("13-05-2025 21:07 - ", "2025-05-13T21:07"),
        ("05-13-2025 9:07 p. m. - ", "2025-05-13T21:07"),
        ("2025-05-13, 9:07 p.m. - ", "2025-05-13T21:07"),
        ("2025/05/13, 21:07 - ", "2025-05-13T21:07"),
        ("2025/5/13 下午9:07 - ", "2025-05-13T21:07"),
        ("2025/5/13 凌晨12:07 - ", "2025-05-13T00:07"),
        ("2025. 5. 13. 오후 9:07 - ", "2025-05-13T21:07"),
        ("13.05.25, 24:07 - ", "2025-05-13T00:07"),
        ("2025. 05. 13. 21:07 - ", "2025-05-13T21:07"),
        ("25-05-03 21:07 - ", "2025-05-03T21:07"),
        ("13.05.25 г., 21:07 ч. - ", "2025-05-13T21:07"),
        ("\u200f١٣\u200f/٥\u200f/٢٠٢٥، ٩:٠٧ م - ", "2025-05-13T21:07"),
        ("13/5/2568 21:07 - ", "2025-05-13T21:07"),
        ("13/5/25, 9:07 μ.μ. - ", "2025-05-13T21:07"),
        ("[13.05.25, 21:07:02] ", "2025-05-13T21:07:02"),
        ("[13/05/2025, 21:07:02] ", "2025-05-13T21:07:02"),
        (f"{LRM}[5/13/25, 9:07:02{NNBSP}PM] ", "2025-05-13T21:07:02"),
        ("[13.5.2025 klo 21.07.02] ", "2025-05-13T21:07:02"),
        ("[2025/5/13 下午9:07:02] ", "2025-05-13T21:07:02"),
        ("[2025-05-13, 9:07:02 p.m.] ", "2025-05-13T21:07:02"),
        ("[13-05-25 21:07:02] ", "2025-05-13T21:07:02"),
    ],
)
def test_the_forms_of_dates_of_phones(begin: str, time: str) -> None:
    got = chat(f"{begin}Mira: Hi\n{begin}Otto: Hello: you\n")
    assert got.contents == ["Hi", "Hello: you"]
    assert got.roles == ["user", "assistant"]
    assert [datetime.fromisoformat(one[:-1]) for one in got.times] == [
        datetime.fromisoformat(time)
    ] * 2


@dataclass(frozen=True)
class Written:
    """A form in which a phone writes dates and times."""

    order: str
    separator: str
    padded: bool
    full_year: bool
    bracketed: bool
    halves: tuple[str, str] | None
    seconds: bool

    def of(self, time: datetime) -> str:
        """Return a time in this form, with the separator before the author."""
        pad = "02" if self.padded else ""
        parts = {
            "D": f"{time.day:{pad}}",
            "M": f"{time.month:{pad}}",
            "Y": f"{time.year}" if self.full_year else f"{time.year % 100:02}",
        }
        date = self.separator.join(parts[one] for one in self.order)
        hour = time.hour if self.halves is None else time.hour % 12 or 12
        clock = f"{hour:02}:{time.minute:02}" + (f":{time.second:02}" if self.seconds else "")
        if self.halves is not None:
            clock += NNBSP + self.halves[time.hour >= 12]
        return f"[{date}, {clock}] " if self.bracketed else f"{date}, {clock} - "


FORMS = st.builds(
    Written,
    order=st.sampled_from(["DMY", "MDY"]),
    separator=st.sampled_from(["/", "-"]),
    padded=st.booleans(),
    full_year=st.booleans(),
    bracketed=st.booleans(),
    halves=st.sampled_from([None, ("AM", "PM"), ("a.m.", "p.m."), ("a. m.", "p. m.")]),
    seconds=st.just(True),
)
TIMES = st.datetimes(datetime(2010, 1, 1), datetime(2040, 1, 1)).map(
    lambda time: time.replace(microsecond=0)
)


def written(form: Written, times: list[datetime]) -> str:
    return "".join(f"{form.of(time)}Mira: m{n}\n" for n, time in enumerate(times))


def read_times(got: Read) -> list[datetime]:
    return [datetime.fromisoformat(one[:-1]) for one in got.times]


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(FORMS, st.lists(TIMES, min_size=1, max_size=12))
def test_a_number_above_12_decides_for_the_whole_file_in_any_order(
    form: Written, times: list[datetime]
) -> None:
    assume(any(time.day > 12 for time in times))
    got = chat(written(form, times), me="Mira", companion=(), trust_times=True)
    assert read_times(got) == times
    assert got.contents == [f"m{n}" for n in range(len(times))]


@given(
    FORMS,
    st.integers(2010, 2040),
    st.integers(1, 12),
    st.integers(1, 9),
    st.lists(st.integers(0, 20), min_size=2, max_size=12),
)
def test_days_that_follow_one_another_show_where_the_day_is(
    form: Written, year: int, month: int, first: int, hours: list[int]
) -> None:
    times, time = [], datetime(year, month, first)
    for step in [24, *hours]:
        times.append(time)
        time += timedelta(hours=step)
    times = [one for one in times if one.month == month and one.day <= 12]
    got = chat(written(form, times), me="Mira", companion=(), trust_times=True)
    assert read_times(got) == times


@given(FORMS, TIMES, TIMES)
def test_a_file_that_contradicts_itself_names_its_two_lines(
    form: Written, one: datetime, other: datetime
) -> None:
    assume(one.day > 12 and other.day > 12)
    reverse = Written(**{**vars(form), "order": form.order[1::-1] + "Y"})
    lines = f"{form.of(one)}Mira: a\nand more\n{reverse.of(other)}Mira: b\n"
    got = chat(lines, me="Mira", companion=())
    assert not got.messages
    assert len(got.rejected) == 1
    day, month = (1, 3) if form.order == "DMY" else (3, 1)
    assert f"line {day} has the day" in got.rejected[0].reason
    assert f"line {month} the month" in got.rejected[0].reason


@given(FORMS, TIMES)
def test_dates_that_nothing_decides_are_asked_for(form: Written, time: datetime) -> None:
    assume(time.day <= 12 and time.day != time.month)
    text = written(form, [time])
    got = chat(text, me="Mira", companion=())
    assert not got.messages
    assert "--day-first" in got.rejected[0].reason
    told = chat(text, me="Mira", companion=(), day_first=form.order == "DMY")
    assert read_times(told) == [time]


def test_dots_mean_that_the_day_comes_first() -> None:
    assert chat("05.03.25, 21:07 - Otto: Hi\n").times == ["2025-03-05T21:07:00.000000Z"]


def test_a_month_never_falls_within_a_year() -> None:
    text = "".join(
        f"{date}/25, 21:07 - Otto: Hi\n" for date in ("11/01", "12/01", "02/02", "03/03", "04/03")
    )
    assert chat(text).times[2] == "2025-02-02T21:07:00.000000Z"
    assert chat(text).times[0] == "2025-01-11T21:07:00.000000Z"


def test_unknown_words_for_the_halves_of_the_day_are_no_guess() -> None:
    text = "13/5/25, 9:07 foo - Otto: a\n13/5/25, 9:07 bar - Otto: b\n"
    got = chat(text)
    assert not got.messages
    assert "before and after noon" in got.rejected[0].reason


@pytest.mark.parametrize(
    "date", ["31/02/25", "99/05/25", "13/05/2005", "13/05/1403", "00/00/25", "13/05/123"]
)
def test_a_date_that_does_not_exist_is_estimated_and_marked(date: str) -> None:
    got = chat(f"13/05/25, 21:07 - Otto: a\n{date}, 21:08 - Otto: b\n13/05/25, 21:09 - Otto: c\n")
    assert got.contents == ["a", "b", "c"]
    assert [one.get("timestamp_estimated") for one in got.metadata] == [None, True, None]
    assert got.times[1] == got.times[0]


@pytest.mark.parametrize(
    "placeholder",
    [
        "<Media omitted>",
        "<Medien ausgeschlossen>",
        "<Multimedia omitido>",
        "<Médias omis>",
        "<Media omessi>",
        "<Mídia oculta>",
        "<Media weggelaten>",
        "<Без медиафайлов>",
        "<Медиафайл пропущен>",
        "<Medya dahil edilmedi>",
        "<pominięto multimedia>",
        "<Media jätettiin pois>",
        "<Mediefil udeladt>",
        "<Media har utelämnats>",
        "<Média vynechány>",
        "<Hiányzó médiafájl>",
        "<Media tidak disertakan>",
        "<Τα πολυμέσα παραλείφθηκαν>",
        "<تم استبعاد الوسائط>",
        "<המדיה לא נכללה>",
        "<मीडिया के बिना>",
        "<メディアは含まれていません>",
        "<미디어 파일 제외됨>",
        "<省略多媒体文件>",
        "<已略去多媒體檔案>",
        "<Mitjans omesos>",
        "<View once voice message omitted>",
        "null",
    ],
)
def test_placeholders_of_android_are_media_without_words(placeholder: str) -> None:
    got = chat(android(placeholder, "Hi"))
    assert got.contents == ["", "Hi"]
    assert len(got.metadata[0]["attachments"]) == 1


@pytest.mark.parametrize(
    ("placeholder", "kind"),
    [
        ("image omitted", "image"),
        ("video omitted", "video"),
        ("audio omitted", "audio"),
        ("GIF omitted", "animation"),
        ("sticker omitted", "sticker"),
        ("Contact card omitted", "contact"),
        ("document omitted", "file"),
        ("Bild weggelassen", "image"),
        ("Video weggelassen", "video"),
        ("Audio weggelassen", "audio"),
        ("Dokument weggelassen", "file"),
        ("imagen omitida", "image"),
        ("Vídeo omitido", "video"),
        ("audio omitido", "audio"),
        ("sticker omitido", "sticker"),
        ("image absente", "image"),
        ("vidéo absente", "video"),
        ("immagine omessa", "image"),
        ("imagem ocultada", "image"),
        ("figurinha omitida", "sticker"),
        ("afbeelding weggelaten", "image"),
        ("изображение отсутствует", "image"),
        ("görüntü dahil edilmedi", "image"),
        ("obraz pominięto", "image"),
        ("图像已忽略", "image"),
        ("圖片已略去", "image"),
        ("画像省略", "image"),
        ("이미지 생략됨", "image"),
        ("تم حذف الصورة", "image"),
        ("התמונה הושמטה", "image"),
    ],
)
def test_placeholders_of_iphones_are_media_without_words(placeholder: str, kind: str) -> None:
    got = chat(iphone(LRM + placeholder, f"See this {LRM}{placeholder}", "Hi"))
    assert got.contents == ["", "See this", "Hi"]
    assert [one.get("attachments") for one in got.metadata] == [[{"kind": kind}]] * 2 + [None]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<Medien ausgeschlossen>", "unknown"),
        ("<View once voice message omitted>", "audio"),
        (f"{LRM}image omitted", "image"),
    ],
)
@pytest.mark.parametrize("caption", ["My garden", "My\n\ngarden", "My garden " * 30])
def test_a_caption_below_a_placeholder_is_what_was_said(text: str, kind: str, caption: str) -> None:
    got = chat((iphone if LRM in text else android)(f"{text}\n{caption}", "Hi"))
    assert got.contents == [caption.strip(), "Hi"]
    assert got.metadata[0]["attachments"] == [{"kind": kind}]


@pytest.mark.parametrize(
    ("text", "content", "kind"),
    [
        ("IMG-20250503-WA0001.jpg (file attached)\nOn the roof", "On the roof", "image"),
        (f"{LRM}IMG-20250503-WA0001.jpg (Datei angehängt)", "", "image"),
        ("VID-20250503-WA0001.mp4 (archivo adjunto)", "", "video"),
        ("PTT-20250503-WA0001.opus (fichier joint)", "", "audio"),
        ("STK-20250503-WA0001.webp (file allegato)", "", "sticker"),
        ("IMG-20250503-WA0001.jpg (fil vedhæftet, ganz anders)", "", "image"),
        ("Ada.vcf (arquivo anexado)", "", "contact"),
        ("My thesis (3).pdf (файл прикреплён)", "", "file"),
        (f"{LRM}<attached: 00000012-PHOTO-2025-05-03-21-07-02.jpg>", "", "image"),
        (
            f"On the roof {LRM}<Anhang: 00000012-PHOTO-2025-05-03-21-07-02.jpg>",
            "On the roof",
            "image",
        ),
        (f"{LRM}<adjunto: 00000012-AUDIO-2025-05-03-21-07-02.opus>", "", "audio"),
        (f"report.pdf • {LRM}2 pages {LRM}document omitted", "", "file"),
        (
            "POLL:\nTea or coffee?\nOPTION: Tea (1 vote)\nOPTION: Coffee (0 votes)",
            "Tea or coffee?",
            "poll",
        ),
        (
            f"{LRM}UMFRAGE:\nTee?\nOPTION: Ja (1 Stimme)\nOPTION: Nein (0)".replace(
                "\n", f"\n{LRM}"
            ),
            "Tee?",
            "poll",
        ),
    ],
)
def test_files_and_polls_leave_their_words(text: str, content: str, kind: str) -> None:
    got = chat(android(text))
    assert got.contents == [content]
    assert got.metadata[0]["attachments"] == [{"kind": kind}]


@pytest.mark.parametrize(
    "text",
    [
        "<3",
        "<grins>",
        "<br>",
        "I edited it <really>",
        "image omitted",
        "see notes.txt (my own)",
        "He said (file attached)",
        "null and void",
        "This message was deleted, she said",
        "NOTE: Tea\nTEA: x",
        "TODO: shopping\nMILK: two (2)\nBREAD: one (1)",
        "<media> is a tag of <html>",
        "  inner\n\n  blanks  stay",
        "https://maps.google.com/?q=1,2",
        "[5/4] milk",
        "5/4/25 milk - and: honey",
        "Pelle: also jam",
        "a\u2028b\x85c\x0bd",
    ],
)
@pytest.mark.parametrize("write", [android, iphone])
def test_what_people_write_stays(text: str, write: Any) -> None:
    got = chat(write(text, "Hi"))
    assert got.contents == [text.strip(), "Hi"]
    assert "attachments" not in got.metadata[0]


@pytest.mark.parametrize(
    "mark",
    [
        "<This message was edited>",
        "<Diese Nachricht wurde bearbeitet.>",
        "<Se editó este mensaje.>",
        "<Ce message a été modifié>",
        "<Questo messaggio è stato modificato>",
        "<Mensagem editada>",
        "<Dit bericht is bewerkt>",
        "<Bu mesaj düzenlendi>",
        "<Сообщение изменено>",
        "<この メッセージは編集されました>",
        "<此消息已编辑>",
    ],
)
def test_the_mark_of_an_edit_is_not_said(mark: str) -> None:
    got = chat(android(f"Jam {mark}", f"Bread {LRM}{mark}", "Hi"))
    assert got.contents == ["Jam", "Bread", "Hi"]
    assert [one.get("edited") for one in got.metadata] == [True, True, None]


@pytest.mark.parametrize(
    "notice",
    [
        "This message was deleted",
        "You deleted this message.",
        "Diese Nachricht wurde gelöscht.",
        "Du hast diese Nachricht gelöscht.",
        "Se eliminó este mensaje.",
        "Ce message a été supprimé",
        "Questo messaggio è stato eliminato",
        "Mensagem apagada",
        "Essa mensagem foi apagada",
        "Essa mensagem foi apagada.",
        "U heeft dit bericht verwijderd",
        "あなたはこのメッセージを削除しました",
        "你已删除此消息",
        "您已刪除這則訊息",
        "이 메시지는 삭제되었습니다.",
        "Hai cancellato questo messaggio",
        "Dit bericht is verwijderd",
        "Данное сообщение удалено",
        "Bu mesaj silindi",
        "تم حذف هذه الرسالة",
        "此消息已删除",
    ],
)
def test_deleted_messages_are_counted_and_not_said(notice: str) -> None:
    got = chat(android(notice, "Hi") + android(LRM + notice))
    assert got.contents == ["Hi"]
    assert got.skipped == {"deleted message": 2}


def test_a_placeholder_of_european_portuguese_is_an_attachment() -> None:
    got = chat(android("<Ficheiro não revelado>"))
    assert (got.contents, len(got.metadata[0]["attachments"])) == ([""], 1)


def test_notices_are_counted_and_not_said() -> None:
    text = (
        "13/05/25, 21:00 - Messages and calls are end-to-end encrypted. Tap to learn more.\n"
        "13/05/25, 21:01 - Otto changed the group name to “Fun: times”\n"
        '13/05/25, 21:02 - Mira changed the subject from "A: b" to "C"\n'
        "13/05/25, 21:03 - Mira added Ada: the first\n"
        "13/05/25, 21:03 - Mira hat den Gruppennamen geändert: neu\n"
        "13/05/25, 21:04 - Otto: Re: Waiting for this message\n"
        "13/05/25, 21:05 - Otto: Waiting for this message. This may take a while.\n"
    )
    got = chat(text)
    assert got.contents == ["Re: Waiting for this message"]
    assert got.skipped == {"notice": 5, "message that never arrived": 1}


def test_notices_of_iphones_bear_a_name_and_a_mark() -> None:
    first = iphone(f"{LRM}Messages and calls are end-to-end encrypted.", "Hi", f"{LRM}Voice call")
    assert chat(first).contents == ["Hi"]
    assert chat(first).skipped == {"notice": 2}
    older = iphone("Messages to this chat are secured with end-to-end encryption.", "Hi")
    assert chat(older).contents == ["Hi"]


def test_the_second_of_two_equal_messages_of_a_minute_counts() -> None:
    got = chat("13/05/25, 21:07 - Otto: Yes\n" * 3)
    assert len({one.message_id for one in got.messages}) == 3


def test_the_same_chat_under_other_names_of_files_adds_only_what_is_new(tmp_path: Path) -> None:
    text = iphone(f"{LRM}Messages and calls are end-to-end encrypted.", "a", "b", "b")
    longer = text + "[14.05.25, 21:07:02] Otto: c\r\n"
    first = chat(text, name="_chat.txt")
    ids = {one.message_id for one in first.messages}
    assert len(ids) == 3
    for name in (
        "_chat (1).txt",
        "_chat-2.txt",
        "WhatsApp Chat - Otto.txt",
        "WhatsApp Chat with Otto (2).txt",
    ):
        got = {one.message_id for one in chat(longer, name=name).messages}
        assert len(got) == 4
        assert ids < got
    archive = tmp_path / "WhatsApp Chat - Otto-2026-01.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("_chat.txt", longer)
        file.writestr("00000012-PHOTO-2025-05-03-21-07-02.jpg", b"\xff\xd8")
        file.writestr("notes.txt", "An attached text: nothing of the chat\n")
    assert recognise(archive).name == "whatsapp"
    got = read("whatsapp", archive, companion=("Otto",))
    assert ids < {one.message_id for one in got.messages}
    assert not got.rejected


def test_chats_of_a_folder_are_told_apart(tmp_path: Path) -> None:
    for name in ("Otto", "Ada"):
        (tmp_path / f"WhatsApp Chat with {name}.txt").write_text(android("Hi"), encoding="utf-8")
    got = read("whatsapp", tmp_path, companion=("Otto",))
    ids = [one.conversation_id for one in got.messages]
    assert ids == ["whatsapp:Ada, Otto", "whatsapp:Otto"]  # with Ada, of whom nothing is there yet


OTHER_NAMES = (
    "WhatsApp Chat with Otto.txt", "WhatsApp Chat with Otto (2).txt", "chat.txt", "_chat.txt",
    "_chat (1).txt", "Otto-2025-06.txt", "my export.txt", "1.txt", "whatsapp.txt",
)  # fmt: skip
"""Names that the file of one chat may have."""

CREATED = "13/05/25, 20:00 - Mira created group “Our boat”\n"


def speakers(*names: str, minute: int = 1) -> str:
    """Return messages of people, one a minute, as Android writes them."""
    return "".join(f"13/05/25, 21:{n:02} - {one}: hi\n" for n, one in enumerate(names, minute))


def zipped(path: Path, text: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("_chat.txt", text)
    return path


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (speakers("Mira", "Otto"), speakers("Mira", minute=9)),
        (CREATED + speakers("Mira", "Otto"), speakers("Ann", "Ben", minute=9)),
        (
            CREATED + speakers("Mira", "Otto"),
            "13/05/25, 21:08 - Otto changed the group name from “Our boat” to “The crew”\n"
            + speakers("Ann", minute=9),
        ),
        (
            '13/05/25, 20:00 - Mira hat den Betreff von "Boot" zu "Schiff" geändert.\n'
            + speakers("Mira", "Otto", "Ann"),
            '13/05/25, 21:08 - Mira hat den Betreff von "Schiff" zu "Floß" geändert.\n'
            + speakers("Ben", minute=9),
        ),
    ],
)
def test_a_chat_is_known_by_its_content_whatever_its_file_is_called(begin, more, tmp_path, lab):
    for name in OTHER_NAMES:
        (tmp_path / name).write_text(begin, encoding="utf-8")
    paths = [tmp_path / name for name in OTHER_NAMES]
    paths.append(zipped(tmp_path / "WhatsApp Chat - Otto.zip", begin))
    options = Options(companion=("Otto",))
    results = [lab.import_from("whatsapp", path, options=options) for path in paths]
    assert results[0].added == begin.count(": hi\n")
    assert sum(one.added for one in results[1:]) == 0
    later = tmp_path / "next month.txt"
    later.write_text(begin + more, encoding="utf-8")
    result = lab.import_from("whatsapp", later, options=options)
    assert (result.added, result.known) == (more.count(": hi\n"), begin.count(": hi\n"))
    assert lab.primary.fetch_all("SELECT count(DISTINCT conversation_id) FROM messages") == [(1,)]


def test_groups_of_the_same_people_are_told_apart_from_their_chat() -> None:
    pair = speakers("Mira", "Otto")
    texts = [
        pair, CREATED + pair, CREATED.replace("boat", "car") + pair,
        "13/05/25, 20:00 - This group was added to the community “Harbour”\n"
        + CREATED.replace("boat", "bus") + pair,
    ]  # fmt: skip
    got = [chat(text, name="_chat.txt") for text in texts]
    ids = [{one.conversation_id for one in each.messages} for each in got]
    assert ids == [
        {"whatsapp:Mira, Otto"}, {"whatsapp:Our boat"}, {"whatsapp:Our car"}, {"whatsapp:Our bus"}
    ]  # fmt: skip
    assert [next(iter(each.channels.values())).kind for each in got] == ["direct", *["group"] * 3]


def test_a_group_of_an_iphone_has_the_name_of_its_notices() -> None:
    text = (
        f"[13.05.25, 21:00:00] Our boat: {LRM}Messages and calls are end-to-end encrypted.\r\n"
        f"[13.05.25, 21:00:01] Our boat: {LRM}Mira created this group\r\n"
        "[13.05.25, 21:00:02] Mira: Hi\r\n[13.05.25, 21:00:03] Otto: Hi\r\n"
    )
    for name in ("_chat.txt", "holiday.txt"):
        got = chat(text, name=name)
        assert {one.conversation_id for one in got.messages} == {"whatsapp:Our boat"}
        assert [one.kind for one in got.channels.values()] == ["group"]


def test_what_people_write_about_groups_is_no_notice() -> None:
    said = speakers("Mira", "Otto").replace("hi", "I created group “Our boat”")
    assert {one.conversation_id for one in chat(said).messages} == {"whatsapp:Mira, Otto"}


def test_a_group_without_a_name_is_known_by_who_wrote_first() -> None:
    begin = speakers("Mira", "Otto", "Ben")
    got = chat(begin + speakers("Ann", "Abel", minute=9), name="chat.txt")
    assert {one.conversation_id for one in got.messages} == {"whatsapp:Ben, Mira, Otto"}
    named = chat(begin, name="WhatsApp Chat with Our boat.txt")
    assert {one.conversation_id for one in named.messages} == {"whatsapp:Our boat"}


def test_other_answers_update_the_messages_of_a_chat(tmp_path, lab) -> None:
    """Also in the hours that come twice, or not at all, where the time is a guess."""
    times = "27.10.24, 02:50", "27.10.24, 02:10", "30.03.25, 02:30", "30.03.25, 04:00"
    path = tmp_path / "chat.txt"
    path.write_text(
        "".join(f"{time} - {one}: hi\n" for time in times for one in ("Mira", "Otto")),
        encoding="utf-8",
    )
    first = lab.import_from(path, options=Options(companion=("Mira",)))
    assert first.added == 8
    for options in (
        Options(companion=("Otto",)),
        Options(companion=("Otto",), zone=get_zone("Europe/Berlin")),
        Options(me="Otto", zone=get_zone("Europe/Berlin")),
    ):
        result = lab.import_from(path, options=options)
        assert (result.added, result.known, result.updated) == (0, 0, 8)
    roles = lab.primary.fetch_all(
        "SELECT DISTINCT json_extract(metadata, '$.author'), role FROM messages ORDER BY 1"
    )
    assert roles == [("Mira", "assistant"), ("Otto", "user")]


def test_the_hour_that_does_not_exist_keeps_the_order(tmp_path, lab) -> None:
    path = tmp_path / "chat.txt"
    path.write_text(
        "".join(
            f"30.03.25, {time} - {author}: {text}\n"
            for time, author, text in [
                ("01:59", "Mira", "a"), ("02:30", "Otto", "b"), ("03:01", "Mira", "c"),
                ("03:02", "Otto", "d"),
            ]
        ),
        encoding="utf-8",
    )  # fmt: skip
    lab.import_from(path, options=Options(companion=("Otto",), zone=get_zone("Europe/Berlin")))
    stored = lab.primary.fetch_all(
        "SELECT content, json_extract(metadata, '$.timestamp_estimated') FROM messages "
        "ORDER BY timestamp, id"
    )
    assert stored == [("a", None), ("b", 1), ("c", None), ("d", None)]


def test_a_name_with_a_colon_is_known_from_the_first_notice() -> None:
    text = iphone(f"{LRM}Messages and calls are end-to-end encrypted.", "Hi", "Re: Hi")
    got = chat(text.replace("Otto", "Dr: House"), companion=("Dr: House",))
    assert got.authors == ["Dr: House"] * 2
    assert got.contents == ["Hi", "Re: Hi"]


def test_a_chat_without_a_name_is_called_by_who_takes_part() -> None:
    text = iphone(f"{LRM}image omitted", "Hi") + iphone("Hello").replace("Otto", "Mira")
    got = chat(text, name="_chat.txt")
    assert {one.conversation_id for one in got.messages} == {"whatsapp:Mira, Otto"}


def test_who_begins_by_speaking_of_encryption_said_it() -> None:
    assert chat(android("Is this end-to-end encrypted?")).contents == [
        "Is this end-to-end encrypted?"
    ]


def test_more_than_two_people_are_a_group() -> None:
    pair = android("a") + android("b").replace("Otto", "Mira")
    (two,) = chat(pair).channels.values()
    (three,) = chat(
        pair + android("c").replace("Otto", f"\u202a+49 170{NBSP}1\u202c")
    ).channels.values()
    assert (two.kind, three.kind) == ("direct", "group")


def test_lines_before_the_first_message_and_bad_bytes_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"torn line\n" + android("a\xfcb", "c").encode("latin-1"))
    got = read("whatsapp", path, companion=("Otto",))
    assert got.contents == ["a\ufffdb", "c"]
    assert [one.where for one in got.rejected] == ["line 1"]


@pytest.mark.slow
def test_a_message_too_long_is_refused_and_the_others_go_in() -> None:
    got = chat(android("x" * 5_000_000, "é\n" * 600_000, "Hi"))
    assert got.contents == ["Hi"]
    assert len(got.rejected) == 2


def test_brackets_inside_a_chat_of_android_are_text() -> None:
    text = android("a\n[13.05.25, 21:07:02] Ada: pasted\n[13.05.25, 21:07:03] Ada: too", "b", "c")
    assert len(chat(text).messages) == 3


@pytest.mark.parametrize(
    "text",
    ["Just: a text\n", "13/05/25 is a date: yes\n", "{}\n", "2025-05-13T21:07:02Z,Me,Hi,None,1\n"],
)
def test_other_texts_are_no_chats(tmp_path: Path, text: str) -> None:
    path = tmp_path / "WhatsApp Chat with Otto.txt"
    path.write_text(text * 5, encoding="utf-8")
    with pytest.raises(SourceUnreadable):
        recognise(path)


def test_the_form_of_android_in_korean() -> None:
    got = chat(
        "2025. 5. 3. 오후 9:06: 메시지와 통화는 종단간 암호화됩니다.\n"
        "2025. 5. 3. 오후 9:07, Otto : 하나 : 둘\n셋\n"
        "2025. 5. 14. 오전 12:08, Mira : <미디어 생략>\n"
    )
    assert got.authors == ["Otto", "Mira"]
    assert got.contents == ["하나 : 둘\n셋", ""]
    assert [time[:16] for time in got.times] == ["2025-05-03T21:07", "2025-05-14T00:08"]
    assert got.skipped == {"notice": 1}


@pytest.mark.parametrize("placeholder", ["<Medien ausgeschlossen>", "<Media omitted>"])
def test_a_caption_below_a_placeholder_is_the_text(placeholder: str) -> None:
    got = chat(android(f"{placeholder}\nMein Garten\nim Mai", f"{placeholder} sagt er", "Hi"))
    assert got.contents == ["Mein Garten\nim Mai", f"{placeholder} sagt er", "Hi"]
    assert [one.get("attachments") for one in got.metadata] == [[{"kind": "unknown"}], None, None]


@pytest.mark.parametrize(
    "notice",
    [
        "Ann hat Bob: Chef hinzugefügt.",
        "Ann hat Bob: Chef entfernt.",
        "Ann heeft Bob: Chef toegevoegd",
        "AnnがBob: Chefを追加しました",
        "Ann added Bob: Chef",
    ],
)
def test_a_notice_about_somebody_with_a_colon_is_said_by_nobody(notice: str) -> None:
    got = chat(android("Hi") + f"13.05.25, 21:30 - {notice}\n" + android("Bob: er hat es entfernt"))
    assert got.authors == ["Otto", "Otto"]
    assert got.skipped == {"notice": 1}


def test_a_name_that_somebody_chose_is_known_without_its_tilde() -> None:
    text = android("Hi") + f"13.05.25, 21:30 - ~{NNBSP}Cy: Hello\n"
    got = chat(text, companion=("Cy",))
    assert got.roles == ["user", "assistant"]
    names = {one.user_id: one.name for batch in chat(text).batches for one in batch.users}
    assert names["~ Cy"] == "Cy"


def test_a_guess_of_the_order_of_day_and_month_is_said(lab, tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text("".join(f"1/{n}/26, 10:05 - {'AZ'[n % 2]}: words\n" for n in range(2, 6)))
    (told,) = lab.import_from(path, companion="Z").notes
    assert told == (
        "No number in the dates of chat.txt is above 12. By the way they change, the month comes "
        "first; if that is wrong, import it again with --day-first."
    )
    assert not lab.import_from(path, companion="Z", day_first=False).notes
    assert lab.import_from(path, companion="Z", day_first=True).updated == 4
    path.write_text("".join(f"1/{n}/26, 10:05 - {'AZ'[n % 2]}: words\n" for n in range(12, 16)))
    assert not lab.import_from(path, companion="Z").notes


def test_days_that_read_the_same_both_ways_do_not_decide_the_order(lab, tmp_path):
    path = tmp_path / "chat.txt"
    same = (f"1/1/2026, {9 + at // 60}:{at % 60:02} - A: text {at}\n" for at in range(210))
    path.write_text("".join(same) + "".join(f"{day}/1/2026, 9:00 - Z: {day}\n" for day in (2, 3)))
    answers = {"companion": "Z", "timezone": "Asia/Tokyo"}
    assert lab.import_from(path, day_first=False, **answers).added == 212
    result = lab.import_from(path, day_first=True, **answers)
    assert (result.added, result.updated) == (0, 2)
