"""Emoji, reactions, links, mentions, attachments and edits of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import ibis
import polars as pl
import polars.selectors as cs

from aico_lab.metrics.engine import claims, draw, guards, pseudonyms
from aico_lab.metrics.engine.checks import at_least
from aico_lab.metrics.engine.metric import NOTE, PEOPLE, Column, Parameter, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk

KINDS: Final = {
    "emoji": "emoji",
    "reaction": "reactions",
    "link": "links",
    "mention": "mentions",
    "attachment": "attachments",
    "edit": "edits",
}
"""The kinds in the order of the answer, each with its noun in the plural."""

_ITEMS: Final = "_items"
"""A hidden column: the number of items that share the row; 0 for an item with a row of its own."""

_ALIKE: Final = "_alike"
"""A hidden column: how many items of the kind, with a row of their own or not, are the most
frequent of those that may be shown."""

_AMONG: Final = "_among"
"""A hidden column: among which items of the kind the finding is, if some may not be shown."""

_OF_KIND: Final = "_of_kind"
"""A hidden column: all observations of the kind, also those of rows that are left out."""


def _finish(rows: pl.DataFrame, talk: Talk, **_parameters: Any) -> pl.DataFrame:
    rows = rows.with_columns(cs.decimal().cast(pl.Int64))
    alone = pl.len().over("kind") == 1
    item = (
        pl.when(pl.col(_ITEMS) == 0)
        .then("item")
        .when(alone)
        .then(pl.lit("all"))
        .when(pl.col(_ITEMS) == 1)
        .then(pl.lit("1 other"))
        .otherwise(pl.format("{} others", _ITEMS))
    )
    least = guards.fewest(talk)
    # Without `min_people`, mentioned people and most kinds of reactions and attachments are shown,
    # of however few people they are.
    limited = (pl.col("kind") == "link") | (pseudonyms.least_people(talk) > 1)
    among = (
        pl.when(limited)
        .then(pl.lit(f" among those of {least:,} or more people"))
        .otherwise(pl.lit(" of those shown"))
    )
    withheld = int(rows.unique("kind")[guards.WITHHELD].sum())
    note = f"{claims.counted(withheld, 'items')} of fewer than {least:,} people among the others"
    place = pl.col("kind").replace_strict({kind: at for at, kind in enumerate(KINDS)})
    return rows.with_columns(
        item=item,
        share=pl.col("n") * 100 / pl.col("n").sum().over("kind"),
        **{
            _OF_KIND: pl.col("n").sum().over("kind"),
            _AMONG: pl.when(pl.col(guards.WITHHELD) > 0).then(among),
            NOTE: pl.lit(note if withheld else None, pl.String),
        },
    ).sort(place, "place")


def _describe(rows: pl.DataFrame) -> str:
    said = []
    for (kind,), found in rows.group_by("kind", maintain_order=True):
        total = int(found[_OF_KIND][0])
        noun = KINDS[str(kind)]
        text = f"{total:,} {noun if total != 1 or kind == 'emoji' else kind}"
        single = found.filter(pl.col(_ITEMS) == 0)
        if kind != "edit" and single.height:
            who = claims.leading(single, "n", "item", alike=int(single[_ALIKE][0]))
            text += f" (the most{single[_AMONG][0] or ''}: {who}, {single['n'][0]:,})"
        said.append(text)
    return "; ".join(said)


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl().filter(pl.col("kind") != "edit")
    rows = answer.pl() if rows.is_empty() else rows
    labelled = rows.with_columns(
        label=pl.format("{}: {}", "kind", "item"), place=pl.int_range(pl.len())
    )
    return (
        alt.Chart(labelled)
        .mark_bar()
        .encode(
            alt.X("n:Q", title=draw.label(answer, "n"), axis=draw.whole(max(rows["n"].to_list()))),
            alt.Y("label:N", title=None, sort=labelled["label"].to_list()),
            alt.Color("kind:N", title=None).scale(domain=list(KINDS)).legend(None),
            tooltip=["kind", "item", "n", "messages", "people"],
        )
        .properties(width=draw.WIDTH, height=18 * labelled.height)
    )


@metric(
    domain="usage",
    question="Which emoji, reactions, links, mentions, attachments and edits are there?",
    source="Emoji: Unicode Technical Standard 51; the kinds are those of chat-analytics",
    parameters=[
        Parameter("top", int, 10, "The most items of each kind with a row of their own."),
        pseudonyms.NAMES,
    ],
    columns=[
        Column("kind", "text", "emoji, reaction, link, mention, attachment or edit"),
        Column("item", "text", "the emoji, domain, mentioned person or kind of attachment"),
        Column("n", "integer", "occurrences of the item"),
        PEOPLE,
        Column("messages", "integer", "messages with the item"),
        Column("share", "number", "share of all occurrences of the kind", "%"),
    ],
    finish=_finish,
    finding=_describe,
    chart=_draw,
    nothing="There are no emoji, reactions, links, mentions, attachments or edits.",
)
def extras(talk: Talk, *, top: int, names: bool) -> ir.Table:
    """Counts of what messages hold besides words, by kind and item.

    Emoji, links and mentions (`@name`) are found in the text. Emoji count without their skin tone;
    of a link only the domain is kept, without `www.`. Reactions, attachments, edits and mentions
    are read from the metadata that the source gave: `reactions` (each with its count),
    `attachments` or `media`, `edited_at`, and `mentions`. A reaction belongs to the person of the
    message that it is about; an edited message counts once. A mentioned person is called by their
    pseudonym, or with `names` by their name; times such as `@5pm` are no mentions.

    The `top` items of each kind have a row each; all others share a row. Links, names of unknown
    people and other texts may reveal who wrote: as in `frequent_words`, those of fewer than
    `min_people` people (by default 5) are among the others.
    """
    at_least("top", top, 1)
    found = talk.extras
    # A person may be mentioned by id and by name.
    found = found.mutate(item=ibis.coalesce(found.mentioned_id, found.item))
    by = ["kind", "item", "is_text", "mentioned_id"]
    counted = found.group_by(*by).agg(
        n=found.n.sum(), people=found.user_id.nunique(), _order=found.item.min()
    )
    known = pseudonyms.labels(talk, "user_id", names=names).rename(mentioned_label="label")
    counted = counted.cross_join(talk.everybody)
    counted = counted.left_join(known, counted.mentioned_id == known.user_id)
    may = ibis.ifelse(
        counted.is_text,
        guards.is_of_enough(talk, counted.people, counted.everybody),
        counted.people >= pseudonyms.least_people(talk)
        if pseudonyms.least_people(talk) > 1
        else counted.n > 0,
    )
    counted = counted.mutate(may=may)
    kind = ibis.window(group_by="kind")
    largest = counted.n.max(where=counted.may).over(kind)
    counted = counted.mutate(
        first=counted.may & (counted.n == largest),
        withheld=(~counted.may).cast("int64").sum().over(kind),
    )
    counted = counted.mutate(alike=counted["first"].cast("int64").sum().over(kind))
    in_order = ibis.window(group_by="kind", order_by=[ibis.desc("may"), ibis.desc("n"), "_order"])
    ranked = counted.mutate(rank=ibis.row_number().over(in_order) + 1)
    own = ranked.may & (ranked["rank"] <= top)
    placed = ranked.select(
        *by,
        place=ibis.ifelse(own, ranked["rank"], top + 1),
        label=ibis.ifelse(own, ibis.coalesce(ranked.mentioned_label, ranked.item), None),
        withheld=ranked.withheld,
        alike=ranked.alike,
    )
    same = [
        found.kind == placed.kind,
        found.item == placed.item,
        found.is_text == placed.is_text,
        found.mentioned_id.identical_to(placed.mentioned_id),
    ]
    rows = found.join(placed, same)
    return rows.group_by("kind", "place").agg(
        item=rows.label.max(),
        n=rows.n.sum(),
        people=rows.user_id.nunique(),
        messages=rows.id.nunique(),
        **{
            _ITEMS: ibis.ifelse(rows.place.max() <= top, 0, rows.item.nunique()),
            guards.WITHHELD: rows.withheld.max(),
            _ALIKE: rows.alike.max(),
        },
    )
