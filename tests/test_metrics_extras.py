"""Emoji, reactions, links, mentions, attachments and edits, and who answers whom."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict

import polars as pl
import pytest

from tests.talks import OTHERS, World, said, talk, world
from tests.talks_by_hand import messages_of


def message(at: float, content: str = "", user: str = "u", role: str = "user", **others) -> dict:
    """A message with metadata, or with `reply_to`."""
    reply_to = others.pop("reply_to", None)
    conversation = others.pop("conversation", "c")
    metadata = json.dumps(others) if others else None
    row = said(at, role, content, user=user, conversation=conversation)
    return row | {"metadata": metadata, "reply_to": reply_to}


def found_in(*messages: dict, **tables: pl.DataFrame) -> list[tuple[str, str, int]]:
    """What the view finds, in order."""
    made = World(talk(*messages), **tables)
    rows = made.connection().execute("SELECT kind, item, n FROM mart.extras ORDER BY ALL")
    found = rows.fetchall()
    made.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "emoji"),
    [
        ("nice 👍 and 👍🏽 and 👍🏿", ["👍"] * 3),
        ("family 👨‍👩‍👧‍👦, flag 🇩🇪🇫🇷, pride 🏳️‍🌈", ["🇩🇪", "🇫🇷", "🏳‍🌈", "👨‍👩‍👧‍👦"]),
        ("heart ❤ or ❤️", ["❤️", "❤️"]),
        ("keycap 1️⃣ and 1 # *", ["1⃣"]),
        ("on fire ❤️‍🔥", ["❤‍🔥"]),
        ("no emoji: © ™ → ♂ ✓ 中文 é 1 #", []),
        ("as emoji: ©️ ™️ ↔️", ["©️", "™️", "↔️"]),
        ("🏴󠁧󠁢󠁳󠁣󠁴󠁿 Scotland", ["🏴󠁧󠁢󠁳󠁣󠁴󠁿"]),
    ],
)
def test_emoji_are_found_in_the_text_without_their_skin_tone(text, emoji):
    found = [(item, n) for kind, item, n in found_in(message(0, text)) if kind == "emoji"]
    assert sorted(item for item, n in found for _ in range(n)) == sorted(emoji)


@pytest.mark.parametrize(
    ("text", "domains"),
    [
        ("see https://www.Example.com/a/b?c=d#e, ok", ["example.com"]),
        ("http://user:secret@host.org:8080/x www.foo.co.uk.", ["foo.co.uk", "host.org"]),
        ("(https://a.b) https://ä.de/ü", ["a.b", "ä.de"]),
        ("no link: a.b, me@example.com, ftp://x.y, http:// www", []),
        ("https://web.archive.org/web/2020/https://example.com/", ["web.archive.org"]),
        ("https://x.com/?u=https://y.com/z#www.z.com www.foo.bar", ["foo.bar", "x.com"]),
        ("https://example.com/www.foo.bar http://h.org:80/", ["example.com", "h.org"]),
        (
            "[a](https://a.de/x)[b](https://b.de/y) https://c.de,https://d.de",
            ["a.de", "b.de", "c.de", "d.de"],
        ),
        ("HTTPS://UPPER.ORG and WWW.LOUD.ORG", ["loud.org", "upper.org"]),
    ],
)
def test_of_a_link_only_the_domain_is_kept(text, domains):
    assert [item for kind, item, _ in found_in(message(0, text)) if kind == "link"] == domains


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@ada hi @Bob_x, (@zed).", ["ada", "bob_x", "zed"]),
        ("me@example.com https://m.org/@bob @ @.", []),
        ("meet @5pm, @17.30 or @9h; ask @2pac, @491701234567", ["2pac", "491701234567"]),
    ],
)
def test_mentions_are_found_in_the_text(text, names):
    assert [item for kind, item, _ in found_in(message(0, text)) if kind == "mention"] == names


def test_metadata_by_their_common_names():
    spoken = [
        message(0, reactions=[{"emoji": "👍🏽", "count": 3}, {"emoji": ":party:"}, "😂"]),
        message(1, reactions=[{"emoji": "👍", "count": 0}, {"count": 2}, 5, None, {"emoji": ""}]),
        message(2, attachments=[{"kind": "Photo"}, {"kind": "photo"}, {}], media="video"),
        message(3, media="audio", edited_at="2024-05-01T12:30:00Z"),
        message(4, "@ada", mentions=["zed", {"id": "Eve"}], edited_at=None),
        message(5, reactions="none", attachments=7, media=["x"], mentions=None, edited_at=False),
    ]
    assert found_in(*spoken) == [
        ("attachment", "audio", 1), ("attachment", "photo", 1), ("attachment", "photo", 1),
        ("edit", "edited", 1), ("mention", "eve", 1), ("mention", "zed", 1),
        ("reaction", ":party:", 1), ("reaction", "👍", 3), ("reaction", "😂", 1),
    ]  # fmt: skip


def test_what_only_system_messages_hold_does_not_count():
    assert found_in(message(0, "👍", role="system")) == []


def spoken_by_many(people: int = 6) -> list[dict]:
    rng = random.Random(3)
    return [
        message(
            100 * user + turn,
            " ".join(rng.choices(["👍", "😂", "https://all.org/x", f"https://own{user}.org", "hi",
                                  f"@p{(user + 1) % people}", "@secret" if user == 0 else "@all"],
                                 k=6)),
            user=f"p{user}",
            conversation=f"c{user}",
            reactions=[{"emoji": "🎉", "count": user + 1}],
        )
        for user in range(people)
        for turn in range(8)
    ]  # fmt: skip


def extras_by_hand(messages: list[dict], top: int, least: int) -> list[tuple]:
    """By splitting the texts at spaces."""
    found: dict[tuple, list] = defaultdict(list)
    for at, row in enumerate(messages):
        for word in row["content"].split():
            kind = "link" if word.startswith("http") else "mention" if word[0] == "@" else "emoji"
            item = word.removeprefix("https://").removesuffix("/x").removeprefix("@")
            if word != "hi":
                found[kind, item].append((row["user_id"], at, 1))
        for reaction in json.loads(row["metadata"])["reactions"]:
            found["reaction", reaction["emoji"]].append((row["user_id"], at, reaction["count"]))
    rows = []
    for kind in ("emoji", "reaction", "link", "mention"):
        items = {item: uses for (k, item), uses in found.items() if k == kind}
        total = sum(n for uses in items.values() for *_, n in uses)

        def text(item, kind=kind):
            return kind == "link" or (kind == "mention" and not item.startswith("p"))

        may = [i for i, uses in items.items() if not text(i) or len({u for u, *_ in uses}) >= least]
        counts = {item: sum(n for *_, n in items[item]) for item in items}
        own = sorted(may, key=lambda item: (-counts[item], item))[:top]
        groups = [([item], item) for item in own]
        rest = [item for item in items if item not in own]
        if rest:
            groups.append((rest, f"{len(rest)} others" if len(rest) > 1 else "1 other"))
        for members, label in groups:
            uses = [use for item in members for use in items[item]]
            n = sum(n for *_, n in uses)
            name = f"Person {int(label[1:]) + 1}" if kind == "mention" and label in may and label[
                0] == "p" else label  # fmt: skip
            people, at = len({u for u, *_ in uses}), len({at for _, at, _ in uses})
            rows.append((kind, name, n, people, at, pytest.approx(100 * n / total)))
    return rows


@pytest.mark.parametrize("top", [2, 10])
def test_extras_are_what_plain_python_counts(top):
    messages = spoken_by_many()
    with world(talk(*messages)) as made:
        assert made.ask("extras", top=top).pl().rows() == extras_by_hand(messages, top, 5)


@pytest.mark.slow
def test_texts_of_few_people_are_among_the_others():
    messages = spoken_by_many()
    with world(talk(*messages)) as made:
        shown = made.ask("extras")
        for text in (str(shown), str(shown.plot().to_dict())):
            assert "own0.org" not in text
            assert "secret" not in text
            assert "all.org" in text
        assert "own0.org" not in str(made.ask("extras", filters={"min_people": 1}))
        assert "own0.org" not in str(made.ask("extras", filters={"user": "p0"}))
        asked = made.ask("extras", filters={"user": "p0", "min_people": 1})
        assert "own0.org" in asked.pl()["item"].to_list()
    with world(talk(message(0, "https://mine.org 👍"))) as made:
        assert made.ask("extras").pl()["item"].to_list() == ["👍", "all"]
        assert made.ask("extras", filters={"min_people": 1}).pl()["item"][1] == "mine.org"


def test_the_finding_of_extras_names_each_kind():
    spoken = [
        message(0, "👍 👍 😂"),
        message(1, "x", edited_at="2024-05-01"),
        message(2, media="gif"),
    ]
    with world(talk(*spoken)) as made:
        answer = made.ask("extras")
        assert answer.finding == (
            "3 emoji (the most: 👍, 2); 1 attachment (the most: gif, 1); 1 edit"
        )
        assert answer.pl()["kind"].to_list() == ["emoji", "emoji", "attachment", "edit"]
        answer.plot().to_dict()


def test_a_mentioned_person_has_a_pseudonym_and_a_name_on_request():
    users = pl.DataFrame([("p0", "Ada"), ("p1", "Zed")], schema=OTHERS["users"], orient="row")
    spoken = [message(0, "hi @ada", user="p1"), message(1, "hi @P1", user="p0")]
    with world(talk(*spoken), users=users) as made:
        assert set(made.ask("extras").pl()["item"]) == {"Person 1", "Person 2"}
        assert set(made.ask("extras", names=True).pl()["item"]) == {"Ada", "Zed"}


def test_a_person_mentioned_in_several_ways_has_one_row():
    """By name in the text, by id in the text, and by id and name in the metadata."""
    users = pl.DataFrame([("p0", "Ada"), ("p1", "Zed")], schema=OTHERS["users"], orient="row")
    spoken = [
        message(0, "hi @ada @p0", user="p1"),
        message(1, user="p1", mentions=["p0", {"name": "Ada"}]),
        message(2, "@unknown", user="p0"),
    ]
    with world(talk(*spoken), users=users) as made:
        answer = made.ask("extras")
    assert answer.pl().select("kind", "item", "n", "people", "messages").rows() == [
        ("mention", "Person 2", 4, 1, 2), ("mention", "1 other", 1, 1, 1),
    ]  # fmt: skip


def linked(domains: int, people: int = 6) -> list[dict]:
    """Each person links to each domain once, and one person to another domain 100 times."""
    spoken = [
        message(number, f"https://d{number % domains}.com", user=f"p{number // domains}",
                conversation=f"c{number // domains}")
        for number in range(domains * people)
    ]  # fmt: skip
    return [*spoken, message(1000, "https://own.org " * 100, user="p0", conversation="c0")]


def test_the_most_frequent_item_is_told_with_all_that_tie_and_among_what():
    with world(talk(*linked(12))) as made:
        for top, shown in ((10, 10), (1, 1), (20, 12)):
            answer = made.ask("extras", top=top)
            assert answer.pl().height == shown + 1
            assert answer.finding == (
                "172 links (the most among those of 5 or more people: "
                "d0.com and 11 others alike, 6)"
            )
            assert answer.caption.endswith("1 item of fewer than 5 people among the others")
        least = made.ask("extras", filters={"min_people": 1})
        assert "among those of 2 or more people: d0.com" in least.finding
        assert "1 item of fewer than 2 people" in least.caption
    with world(talk(*linked(2)[:-1])) as made:  # nothing is withheld
        answer = made.ask("extras")
        assert answer.finding == "12 links (the most: d0.com and d1.com alike, 6)"
        assert "among" not in answer.caption


def answers_by_hand(raw: pl.DataFrame) -> Counter:
    """How often somebody answers somebody, None for the companion."""
    replies = dict(raw.select("id", "reply_to").iter_rows())
    ids = {row["message_id"]: row["id"] for row in raw.iter_rows(named=True)}
    messages = messages_of(raw)
    by_id = {m.id: m for m in messages}

    def author(m):
        return ("person", m.person) if m.role == "user" else ("companion", None)

    counts: Counter = Counter()
    before = None
    for m in messages:
        answered = by_id.get(ids.get(replies[m.id]))
        if answered is None and before is not None and (
            (before.conversation, before.session) == (m.conversation, m.session)
        ):  # fmt: skip
            answered = before
        if answered is not None and author(answered) != author(m):
            counts[author(m), author(answered)] += 1
        before = m
    return counts


def group_chat(seed: int = 1, size: int = 200) -> pl.DataFrame:
    """Five people and the companion in two conversations, with silences and replies."""
    rng = random.Random(seed)
    at, rows = 0, []
    for number in range(1, size + 1):
        at += rng.choice([1, 30, 300, 1799, 1801, 5000])
        role = rng.choice(["user", "user", "assistant", "system"])
        to = rng.choice([None, None, f"m{rng.randint(1, number)}", "unknown"])
        rows.append(
            message(at, user=rng.choice("abcde") if role == "user" else None, role=role,
                    conversation=rng.choice("xy"), reply_to=to)
        )  # fmt: skip
    return talk(*rows)


@pytest.mark.parametrize("top", [2, 15])
def test_answers_are_what_plain_python_counts(top):
    raw = group_chat()
    counts = answers_by_hand(raw)
    first = list(dict.fromkeys(raw["user_id"].drop_nulls().to_list()))
    given = Counter()
    for ((side, person), _), n in counts.items():
        if side == "person":
            given[person] += n
    own = sorted(given, key=lambda person: (-given[person], first.index(person)))[:top]

    def label(end):
        side, person = end
        if side == "companion":
            return side
        return f"Person {first.index(person) + 1}" if person in own else "others"

    expected, people = Counter(), defaultdict(set)
    for (one, other), n in counts.items():
        cell = label(one), label(other)
        expected[cell] += n
        people[cell] |= {person for _, person in (one, other)} - {None}
    with world(raw) as made:
        answer = made.ask("who_answers_whom", top=top)
    assert {(a, b): n for a, b, n in answer.pl().select("author", "answered", "n").rows()} == (
        expected
    )
    assert {(a, b): n for a, b, n in answer.pl().select("author", "answered", "people").rows()} == {
        cell: len(found) for cell, found in people.items()
    }
    assert answer.pl()["share"].sum() == pytest.approx(100)


def test_who_answers_whom_by_hand():
    spoken = [
        message(0, user="a"),
        message(5, user="b"),
        message(6, user="b"),  # of one's own: none
        message(9, user="a", reply_to="m1"),  # of one's own, by name
        message(12, user="c", reply_to="m1"),  # answers a, not the message before
        message(5000, user="a"),  # after a silence
        message(5001, user=None, role="assistant"),
    ]
    with world(talk(*spoken)) as made:
        answer = made.ask("who_answers_whom")
        rows = answer.pl().select("author", "answered", "n", "people", "by_name").rows()
        assert sorted(rows) == [
            ("Person 2", "Person 1", 1, 2, 0),
            ("Person 3", "Person 1", 1, 2, 1),
            ("companion", "Person 1", 1, 1, 0),
        ]
        assert answer.finding.endswith("alike: 1 of 3 answers each; 1 by naming the message")
        together = made.ask("who_answers_whom", filters={"min_people": 3}).pl()
        assert together.select("author", "answered", "n", "people").rows() == [
            ("people", "people", 2, 3)
        ]
        # The message before is not known where a filter hides it.
        assert made.ask("who_answers_whom", filters={"user": "b"}).pl().is_empty()


def test_one_person_and_the_companion_answer_each_other():
    with world(talk(*(said(n, ("user", "assistant")[n % 2]) for n in range(5)))) as made:
        answer = made.ask("who_answers_whom")
        assert answer.pl().select("author", "answered", "n").rows() == [
            ("companion", "Person 1", 2), ("Person 1", "companion", 2),
        ]  # fmt: skip
        assert answer.finding == (
            "Most often the companion answers Person 1 and Person 1 answers the companion alike: "
            "2 of 4 answers each"
        )
