"""Parts of the captions of results of explorations: filters, model, and how themes were chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.embeddings.exploration.stability import ENOUGH
from aico_lab.metrics.engine.claims import counted

if TYPE_CHECKING:
    from aico_lab.embeddings.exploration.selection import Selection
    from aico_lab.embeddings.exploration.stored import Exploration


def only(chosen: Selection) -> str:
    """Return the filters as the beginning of a caption; empty without filters."""
    return f"Only {chosen.said}. " if chosen.said else ""


def caption(found: Exploration, chosen: Selection) -> str:
    """Return the filters, the model, and when an exploration was made of which passages."""
    seed = found.parameters.get("seed", 0)
    made = f"{found.created_at[:10]} of {counted(found.explored, 'passages')}, seed {seed}"
    return f"{only(chosen)}{found.model}, explored {made}"


def few(found: Exploration, people: int) -> str:
    """Return why fewer people than asked for are enough for a name; empty if they are not."""
    asked = found.parameters.get("min_people", people)
    return f", as there are no more ({asked} were asked for)" if people < asked else ""


def how_chosen(found: Exploration) -> str:
    """Return phrases that tell how the number of themes was chosen, and how stable they are."""
    number, by_number = found.notes.get("clusters", 0), found.notes.get("stability_by_number", {})
    asked, distinct = found.parameters.get("themes"), found.notes.get("distinct", found.explored)
    equal = sum(len(names) - 1 for names in found.notes.get("merged", []))
    merged = f", {equal} of them merged into others" if equal else ""
    groups = counted(number, "groups")
    if asked and asked > number:
        how = f"{groups} of the {asked:,} asked for, as no more vectors differ{merged}"
    elif asked:
        how = f"{groups} as asked for{merged}"
    elif len(by_number) > 1:
        among = ", ".join(f"{one} ({mean:.2f})" for one, (mean, _) in by_number.items())
        how = (
            f"{groups}, the largest number whose stability is at least {100 * ENOUGH:.0f} % of the "
            f"best, of {among}{merged}"
        )
    else:
        how = f"{groups}, as there are too few passages for more{merged}"
    if found.stability is not None and number > 1:
        how += f"; stability {found.stability:.2f} (adjusted Rand index of groups between samples)"
    if 2 * distinct < found.explored:
        how += (
            f"; the model tells only {distinct:,} of the {found.explored:,} passages apart, so "
            "themes and map say little"
        )
    return how
