"""Scores of an older rule are made again, once, and nothing else is touched."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from aico_lab.domain import Conversation
from aico_lab.importing import rescoring
from aico_lab.lab import Lab
from aico_lab.repositories import UnitOfWork
from tests.chat_lines import lines_of
from tests.messages import add, at, message

PRESENT = "vader-3.3.2-2"
APOSTROPHE = "I don’t like this."  # noqa: RUF001


def stored(lab, *texts, source="vader-3.3.2", conversation="c", first=0):
    """Messages as an older version stored them."""
    add(lab.primary, *[
        message(first + n, content=text, sentiment_score=0.5, conversation_id=conversation)
        for n, text in enumerate(texts)
    ])  # fmt: skip
    lab.primary.execute(
        "UPDATE messages SET sentiment_source = ? WHERE conversation_id = ?", [source, conversation]
    )


def scores(lab):
    return lab.primary.fetch_all(
        "SELECT sentiment_score, sentiment_source FROM messages ORDER BY id"
    )


@pytest.mark.slow
def test_old_scores_are_made_anew_and_reach_the_warehouse(lab, cli):
    """From the command line; doctor offers it, and given scores stay."""
    stored(lab, APOSTROPHE, "I love this!", "   ")
    stored(lab, "Great!", source="given", conversation="d", first=10)
    stored(lab, "ok", source=None, conversation="e", first=20)
    lab.sync()
    doctor = json.loads(cli("doctor", "--json").stdout)
    (finding,) = [one for one in doctor if one["check"] == "sentiment"]
    assert finding["ok"]
    assert finding["detail"] == (
        "3 messages have no score, or one of an older version; `aico-lab rescore` will score them"
    )
    done = cli("rescore", "--json")
    assert json.loads(done.stdout) == {"rescored": 3, "scored": 2, "unscored": 1}
    assert scores(lab) == [
        (-0.2755, PRESENT), (0.6696, PRESENT), (None, None), (0.5, "given"), (0.5, None),
    ]  # fmt: skip
    cli("sync")
    found = lab.sql("SELECT sentiment_score FROM mart.messages ORDER BY id").fetchall()
    assert found == [(-0.2755,), (0.6696,), (None,), (0.5,), (0.5,)]
    assert lab.sql("SELECT count(*) FROM raw.messages WHERE sentiment_source = 'vader-3.3.2-2'"
                   ).fetchall() == [(2,)]  # fmt: skip
    assert cli("rescore").stdout == "All scores are up to date.\n"
    assert "all scores are up to date" in cli("doctor").stdout


def test_other_languages_lose_their_score(lab):
    """Also the short messages of their conversations, and their sync says why."""
    stored(lab, *lines_of("de"))
    stored(lab, "Good morning!", "ok", conversation="e", first=50)
    lab.sync()
    assert lab.rescore() == rescoring.RescoreResult(22, 2, 20)
    assert lab.rescore() == rescoring.RescoreResult(0, 0, 0)
    lab.sync()
    found = lab.sql(
        "SELECT sentiment_source, count(*), count(sentiment_score) FROM raw.messages GROUP BY 1 "
        "ORDER BY 1"
    ).fetchall()
    assert found == [("language:de", 20, 0), (PRESENT, 2, 2)]
    assert lab.sql("SELECT sum(n_scored) FROM mart.daily").fetchall() == [(2,)]


def test_it_goes_on_after_it_was_stopped(lab):
    """What was done stays, and a short message knows its conversation from what is stored."""
    stored(lab, *lines_of("de"))
    told = []

    def stop(*step):
        told.append(step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rescoring.rescore(lab.primary, progress=stop, batch=3)
    assert told == [("rescore", 3, 20)]
    with Lab.open(lab.home.path) as other:
        assert rescoring.count_due(other.primary) == 17
    told.clear()
    result = rescoring.rescore(lab.primary, progress=lambda *step: told.append(step), batch=3)
    assert result == rescoring.RescoreResult(17, 0, 17)
    assert told[-1] == ("rescore", 17, 17)
    assert {source for _, source in scores(lab)} == {"language:de"}


def test_a_short_message_follows_what_was_imported_before(lab, tmp_path):
    """In another import, in its conversation only."""

    def imported(*lines):
        file = tmp_path / "m.jsonl"
        file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
        lab.import_from("jsonl", file)

    imported(*[
        {"content": text, "timestamp": at(n), "conversation_id": "d"}
        for n, text in enumerate(lines_of("de"))
    ])  # fmt: skip
    imported({"content": "ok", "timestamp": at(99), "conversation_id": "d"})
    imported({"content": "ok", "timestamp": at(99), "conversation_id": "e"})
    assert scores(lab)[-2:] == [(None, "language:de"), (0.296, PRESENT)]


async def test_messages_that_were_stored_without_a_score_get_one(lab):
    """By a unit of work or another program; blank messages have none, and are done."""
    add(lab.primary, message(0, content="I love this!", sentiment_score=None))
    add(lab.primary, message(1, content=" \t\u3000\n", sentiment_score=None))
    async with lab.data_access() as dal, UnitOfWork(dal) as work:
        moment = datetime(2024, 3, 1, tzinfo=UTC)
        await work.conversations.save(Conversation("u", "This is horrible.", moment))
        await work.commit()
    assert rescoring.count_due(lab.primary) == 2
    assert lab.rescore() == rescoring.RescoreResult(2, 2, 0)
    assert scores(lab) == [(0.6696, PRESENT), (None, None), (-0.5423, PRESENT)]
    assert rescoring.count_due(lab.primary) == 0
    assert lab.rescore() == rescoring.RescoreResult(0, 0, 0)
