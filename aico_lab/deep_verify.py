"""Check every page, value and store of a home: `aico-lab verify --deep`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aico_lab.adapters.libsql_seal import older
from aico_lab.errors import AicoLabError, NeverSynced
from aico_lab.health import Finding, check_one, diagnose_stores
from aico_lab.integrity.guard import (
    OUTSIDE,
    UNCOMPARED,
    accept_if_sound,
    damaged,
    end_warning,
    examine_unwritable,
    last_uncompared,
)
from aico_lab.integrity.review import find_unsoundness

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.etl.verify import TableProof
    from aico_lab.lab import Lab


@dataclass(frozen=True, slots=True)
class DeepProof:
    """The outcome of a deep check.

    Attributes:
        ok: Whether everything is sound.
        generation: The generation of the snapshot that was compared; None without one.
        tables: The comparison of each table with that snapshot.
        findings: The outcome for the pages of the primary database, its structure, and each store.
        uncompared: The tables and other things that were changed by another program, or damaged,
            and that nothing could be compared with; '' for none.
    """

    ok: bool
    generation: int | None
    tables: dict[str, TableProof]
    findings: list[Finding]
    uncompared: str = ""


def verify_deep(
    lab: Lab, *, progress: Callable[[str, int, int | None], None] | None = None
) -> DeepProof:
    """Check every page of the primary database, every value of the snapshot, and every store.

    Pages that another program may have written are sealed, and told.

    Args:
        lab: The opened home.
        progress: Called with the next table, the number of compared tables, and of all tables.

    Raises:
        CorruptDatabase: The primary database cannot be opened, or is older than its seal.
    """
    primary = lab.primary
    findings = [
        check_one("pages", lambda: _check_pages(lab)),
        check_one("structure", lambda: _check_structure(lab)),
    ]
    generation, tables = None, {}
    try:
        proof = lab.verify(progress=progress)
        generation, tables = proof.generation, proof.tables
    except NeverSynced:
        pass
    except AicoLabError as error:
        findings.append(Finding("values", ok=False, detail=str(error)))
    findings += diagnose_stores(lab, with_seal=False)
    ok = all(one.ok for one in findings) and all(one.ok for one in tables.values())
    if primary.seal is not None:
        try:
            if ok:
                end_warning(primary, primary.seal.read().pages)
            primary.seal.renew(primary, deep=ok)
        except AicoLabError as error:
            findings.append(Finding("seal", ok=False, detail=str(error)))
            ok = False
    told = findings[0].detail
    _, _, uncompared = told.partition(f"{UNCOMPARED}: ")
    if not told.startswith(OUTSIDE):  # but by an earlier check, and in parentheses
        uncompared = uncompared.removesuffix(")")
    return DeepProof(ok, generation, tables, findings, uncompared)


def _check_pages(lab: Lab) -> str:
    seal = lab.primary.seal
    if seal is None and lab.encrypted:
        return f"all {examine_unwritable(lab.storage):,} are as they were sealed"
    if seal is None:
        return "no seal"
    if lost := seal.settle(lab.primary):
        raise older(lost)
    seal.renew(lab.primary)
    before = seal.read()
    changed = seal.examine(lab.primary)
    if (changed or before.foreign) and (
        said := accept_if_sound(lab.storage, seal, changed, before)
    ):
        return f"{OUTSIDE}: {said}"
    return f"all {seal.read().pages:,} are as they were sealed{last_uncompared(lab.primary)}"


def _check_structure(lab: Lab) -> str:
    if unsound := find_unsoundness(lab.primary):
        raise damaged(unsound)
    return "sound, with all indexes"
