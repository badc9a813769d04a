"""`aico-lab personality`: propose changes of the companion's personality, apply and watch them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.output import emit, say, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.domain import PersonalityChange, Profile
    from aico_lab.personality.proposals import Proposal
    from aico_lab.personality.status import PersonalityStatus

personality = typer.Typer(
    help="Tune the companion's personality by evidence.", no_args_is_help=True
)

UserOption = Annotated[
    str | None, typer.Option(help="The person, by id or name; by default everybody.")
]
ContextOption = Annotated[
    str | None, typer.Option(help="The context, such as evening; by default every context.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would happen, and change nothing.")
]
ProposalArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The proposal, or the beginning of its id.")
]
WatchedArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="ID", help="The change, or the beginning of its id; by default the watched one."
    ),
]

_SIMULATED = "Simulated data."


@personality.command("status")
def personality_status(
    *,
    user: UserOption = None,
    context: ContextOption = None,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show the profile, decisions, proposals, and how a change does."""
    with open_lab(home, key_file) as lab:
        found = lab.personality.status(user, context)
    if json:
        emit(found)
    else:
        _say_status(found)


@personality.command("propose")
def personality_propose(
    *,
    goal: Annotated[
        str, typer.Option(help="The outcome to improve, such as satisfaction or reply_latency.")
    ] = "satisfaction",
    max_step: Annotated[
        float, typer.Option(help="The most that a trait may move, above 0 and at most 1.")
    ] = 0.1,
    user: UserOption = None,
    context: ContextOption = None,
    policy: Annotated[
        str | None,
        typer.Option(help="The policy whose arms are compared; by default the one used most."),
    ] = None,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Propose a bounded change, from the newest snapshot.

    The exit code is 1 if nothing can be proposed.
    """
    with open_lab(home, key_file) as lab:
        found = lab.personality.propose(
            goal, max_step=max_step, user=user, context=context, policy=policy, dry_run=dry_run
        )
    if json:
        emit(found)
    else:
        _say_proposal(found)
    if found.arm is None:
        raise typer.Exit(1)


@personality.command("show")
def personality_show(
    change_id: ProposalArgument,
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show a proposal, and what became of it."""
    with open_lab(home, key_file) as lab:
        found = lab.personality.show(change_id)
    if json:
        emit(found)
    else:
        _say_change(found)


@personality.command("apply")
def personality_apply(
    change_id: ProposalArgument,
    *,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Apply a proposal: write a new version of the profile, and watch it."""
    with open_lab(home, key_file) as lab:
        done = lab.personality.apply(change_id, dry_run=dry_run)
    _say_done(done, dry_run=dry_run, json=json, then="follow it with `aico-lab personality status`")


@personality.command("keep")
def personality_keep(
    change_id: WatchedArgument = None,
    *,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Keep a watched change, and end its watch."""
    with open_lab(home, key_file) as lab:
        done = lab.personality.keep(change_id, dry_run=dry_run)
    _say_done(done, dry_run=dry_run, json=json, then="another change can be proposed")


@personality.command("rollback")
def personality_rollback(
    change_id: WatchedArgument = None,
    *,
    dry_run: DryRunOption = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Undo a watched change: restore the traits from before."""
    with open_lab(home, key_file) as lab:
        done = lab.personality.rollback(change_id, dry_run=dry_run)
    _say_done(done, dry_run=dry_run, json=json, then="the traits are those from before")


def _say_status(found: PersonalityStatus) -> None:
    if found.simulated:
        say(_SIMULATED)
    if found.profile is None:
        say("There is no profile yet: state one with `lab.personality.add_profile()` in Python.")
    else:
        show(f"profile    {_named(found.profile)}")
        show(f"traits     {_levels(found.profile.traits)}")
        show(f"stability  {found.profile.stability:g}: at most {found.profile.max_step:g} a change")
    for rule in found.broken_rules:
        show(f"violated   {rule}")
    share = f", {found.with_propensity:,} with a propensity" if found.decisions else ""
    say(f"decisions  {found.decisions:,}{share}")
    for policy in found.policies:
        whose = f", of {policy['user_id']}" if policy["user_id"] else ""
        show(f"policy     {policy['name']}, {policy['kind']}, {_rounds(policy['rounds'])}{whose}")
    for one in found.proposed:
        show(f"proposed   {one.id}: {one.reason}")
    for watched in found.watched:
        made = watched.change
        since = f" since {made.applied_at:%Y-%m-%d}" if made.applied_at else ""
        show(f"watched    {made.id}{since}: {watched.recommendation}. {watched.reason}")
        outcomes = (watched.watch.goal, *watched.watch.guardrails) if watched.watch else ()
        for change in outcomes:
            value = "unknown" if change.value is None else f"{change.value:+.3g}"
            ends = "" if change.low is None else f" ({change.low:+.3g} to {change.high:+.3g})"
            show(f"             {change.outcome:<20} {value}{ends}, {change.people:,} people")
    if found.watched:
        say("Next: `aico-lab personality keep` or `aico-lab personality rollback`, or wait.")


def _say_proposal(found: Proposal) -> None:
    show(found.sentence)
    for one in found.candidates:
        if one.arm != found.arm and one.sentence not in found.sentence:
            named = one.sentence.startswith(one.arm)
            show(f"  {one.sentence}" if named else f"  {one.arm}: {one.sentence}")
    if found.arm is None:
        if found.needed:
            show(found.needed)
        if found.policy is not None:
            show(f"It is about the arms of the policy {found.policy}.")
        return
    _say_effects(found.steps, found.before, found.after)
    for guardrail in found.guardrails:
        if guardrail.value is None:
            show(f"  guardrail {guardrail.outcome}: unknown ({guardrail.sentence})")
        else:
            ends = f"{guardrail.low:+.3g} to {guardrail.high:+.3g}"
            show(f"  guardrail {guardrail.outcome}: {guardrail.value:+.3g} ({ends})")
    show(
        f"Evidence: {found.decisions:,} decisions of the policy {found.policy} about "
        f"{found.people:,} people, snapshot {found.generation}. It concerns "
        f"{_whom(found.user_id, found.context)}."
    )
    if found.change_id is None:
        say("Nothing was stored.")
    else:
        say(f"Apply it with `aico-lab personality apply {found.change_id[:8]}`.")


def _say_change(found: PersonalityChange) -> None:
    if found.proposal.get("simulated"):
        say(_SIMULATED)
    ended = found.ended_at or found.applied_at or found.proposed_at
    show(f"{found.id}: {found.status} on {ended:%Y-%m-%d %H:%M} UTC")
    show(found.reason or "")
    before, after = (found.proposal.get(name, {}) for name in ("before", "after"))
    _say_effects(found.steps, before, after)
    show(f"It concerns {_whom(found.user_id, found.context)}.")


def _say_effects(
    steps: Mapping[str, float], before: Mapping[str, float], after: Mapping[str, float]
) -> None:
    for name, step in steps.items():
        levels = f", from {before[name]:g} to {after[name]:g}" if name in before else ""
        show(f"  {name} {step:+g}{levels}")


def _say_done(done: PersonalityChange, *, dry_run: bool, json: bool, then: str) -> None:
    if json:
        emit(done)
    elif dry_run:
        say(f"Nothing was changed; the change {done.id} would be {done.status}.")
    else:
        say(f"The change {done.id} is {done.status}; {then}.")


def _whom(user_id: str | None, context: str | None) -> str:
    whom = user_id or "everybody without a version of their own"
    return whom if context is None else f"{whom}, in the context {context}"


def _named(profile: Profile) -> str:
    whose = profile.user_id or "everybody"
    where = f", {profile.context}" if profile.context else ""
    return f"version {profile.version} of {whose}{where}, since {profile.active_from:%Y-%m-%d} UTC"


def _rounds(count: int) -> str:
    return f"{count:,} round{'' if count == 1 else 's'}"


def _levels(traits: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {level:g}" for name, level in traits.items()) or "none"
