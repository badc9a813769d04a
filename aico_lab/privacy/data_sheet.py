"""The data sheet of an export: what the data are, how many, and what was removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from aico_lab.privacy.redaction import RECALL
from aico_lab.privacy.shared_files import COLUMNS, EPOCH, schema_of

if TYPE_CHECKING:
    from datetime import date

    from aico_lab.privacy.shared_files import SharedCounts
    from aico_lab.privacy.sharing import SharingRules


def data_sheet(
    done: SharedCounts,
    rules: SharingRules,
    *,
    generation: int,
    total: int,
    min_people: int,
    since: str | date | None,
    chosen: list[str] | None,
) -> dict[str, Any]:
    """Return what the data are, when they were made, how many there are, and what was removed.

    Args:
        done: What was written.
        rules: How messages were changed.
        generation: The generation of the snapshot.
        total: The number of messages of the home.
        min_people: The fewest people of a count.
        since: The beginning of the period as it was given.
        chosen: The ids of the chosen people; None for all.
    """
    schema = schema_of(rules.content)
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": f"aico-lab {version('aico-lab')}",
        "snapshot": generation,
        "messages": done.messages,
        "people": len(done.people),
        "channels": len(done.channels),
        "first_message": _moment(done.first_us),
        "last_message": _moment(done.last_us),
        # Beside shifted times, it would tell by how much they are shifted.
        "since": None if since is None or rules.shift else str(since),
        "people_chosen": None if chosen is None else len(chosen),
        "left_out": total - done.messages,
        "content": rules.content,
        "pseudonyms": rules.study is not None,
        "times_shifted": rules.shift,
        "removed_from_texts": dict(rules.redactor.removed),
        "recall_of_removal": {
            kind: f"{found} of {all_} in a sample of invented messages"
            for kind, (found, all_) in RECALL.items()
        }
        if rules.content == "redacted"
        else None,
        # Their names may be anything, as those of people.
        "metadata_removed": {"fields": len(rules.dropped), "values": rules.dropped.total()},
        "least_people_of_counts": min_people,
        "counts_left_out": done.suppressed,
        "columns": {name: COLUMNS[name] for name in schema.names},
    }


def _moment(at_us: int | None) -> str | None:
    return None if at_us is None else (EPOCH + timedelta(microseconds=at_us)).isoformat()


def as_text(sheet: dict[str, Any]) -> str:
    """Return a data sheet for people to read."""
    names = {
        "none": "left out",
        "redacted": "shared without names, numbers and addresses, as far as rules find them",
        "full": "shared as they are",
    }
    counted = (
        f"{sheet['messages']:,} of {sheet['people']:,} people in {sheet['channels']:,} channels, "
        f"from {sheet['first_message']} to {sheet['last_message']} (UTC)"
    )
    ids = "pseudonyms" if sheet["pseudonyms"] else "those of the home"
    times = "shifted by weeks, in whole seconds" if sheet["times_shifted"] else "as recorded"
    lines = [
        "# Data sheet",
        "",
        f"Made at {sheet['made_at']} by {sheet['made_by']}, from snapshot {sheet['snapshot']}.",
        "",
        f"- Messages: {counted}.",
        f"- Left out: {sheet['left_out']:,} messages of the home.",
        f"- Texts are {names[sheet['content']]}.",
        f"- Ids are {ids}; times are {times}.",
        f"- Counts by day are of at least {sheet['least_people_of_counts']} people.",
        f"- Counts left out for that reason: {sheet['counts_left_out']:,}.",
    ]
    if sheet["pseudonyms"]:
        lines.append(
            "- Pseudonyms hide ids, not behaviour: intervals, lengths and sentiment of messages "
            "stay, by which the same people can be found in other data."
        )
    if sheet["recall_of_removal"]:
        lines += [
            f"- Removed: {sheet['removed_from_texts'].get(kind, 0):,} of the kind {kind} "
            f"(the rules remove {recall})."
            for kind, recall in sheet["recall_of_removal"].items()
        ]
    if sheet["metadata_removed"]["fields"]:
        removed = sheet["metadata_removed"]
        lines.append(
            f"- Removed from the metadata: {removed['values']:,} values of "
            f"{removed['fields']:,} fields."
        )
    lines += ["", "| column of messages.parquet | meaning |", "| --- | --- |"]
    lines += [f"| {name} | {meaning} |" for name, meaning in sheet["columns"].items()]
    return "\n".join([*lines, ""])
