"""`aico-lab cache`: look into the cache, and empty it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.output import emit, note, say, show
from aico_lab.results import json_text

if TYPE_CHECKING:
    from aico_lab.cache.inspection import EntryUse

cache = typer.Typer(
    help="Look into the cache beside other programs, and empty it.",
    no_args_is_help=True,
)

ShowValuesOption = Annotated[
    bool, typer.Option("--show-values", help="Show the values, not only their kinds and sizes.")
]


@cache.command("stats")
def cache_stats(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Show entries, bytes, ages and hits of each namespace, and the levels of RocksDB."""
    with open_lab(home, key_file) as lab:
        found = lab.cache.inspect()
    if json:
        emit(found)
    else:
        show(repr(found))


@cache.command("keys")
def cache_keys(
    prefix: Annotated[
        str, typer.Argument(help="The beginning of the keys, such as session: or session:ada.")
    ] = "",
    *,
    limit: Annotated[int, typer.Option(min=1, help="The most keys to show.")] = 20,
    show_values: ShowValuesOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """List keys with their sizes and times, sorted by key."""
    from aico_lab.cache.inspection import entries_of

    with open_lab(home, key_file) as lab, lab.cache.looking() as store:
        found, count = entries_of(store, prefix, limit, content=show_values)
    if json:
        emit(found)
        return
    for one in found:
        _show(one)
    if count > len(found):
        note(f"{count - len(found):,} more keys; --limit shows more.")
    if not found:
        say("There is no such key.")


@cache.command("get")
def cache_get(
    key: Annotated[str, typer.Argument(help="The key, such as session:ada.")],
    *,
    show_values: ShowValuesOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show one entry; the exit code is 1 if there is none."""
    from aico_lab.cache.inspection import entry_of

    with open_lab(home, key_file) as lab, lab.cache.looking() as store:
        found = entry_of(store, key, content=show_values)
    if json:
        emit(found)
    elif found is not None:
        _show(found)
    else:
        note("There is no such key.")
    if found is None:
        raise typer.Exit(1)


@cache.command("clear")
def cache_clear(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAMESPACE", help="The only namespace to empty; by default all."),
    ] = None,
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Remove all entries, or those of one namespace, and free their space."""
    with open_lab(home, key_file) as lab:
        lab.cache.clear(name)
    if json:
        emit({"cleared": name or "all"})
    else:
        say(f"The {f'namespace {name}' if name else 'cache'} is empty.")


def _show(one: EntryUse) -> None:
    written = f"{one.key}  {one.bytes:,} bytes, {one.written:%Y-%m-%d %H:%M:%S}"
    if one.expired:
        show(f"{written} UTC, expired")
        return
    value = one.value if isinstance(one.value, str) else json_text(one.value)
    show(f"{written} until {one.expires:%Y-%m-%d %H:%M:%S} UTC  {value}")
