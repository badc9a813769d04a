"""Tell people about the end of a run through Apprise: by e-mail, a webhook, or on the desktop.

The addresses are secrets: they are neither printed nor stored. A notice names the pipeline, the
step and the kind of an error, but no path and no text of the home.
"""

from __future__ import annotations

import logging
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import AicoLabError, InvalidValue, LibraryMissing, UnknownName, did_you_mean
from aico_lab.pipeline.records import note_safely

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.pipeline.definition import Pipeline
    from aico_lab.pipeline.records import PipelineRun

EVENTS: Final = ("failure", "recovery", "success")
"""The ends of a run that a notice can be about; a recovery is a success after a failure."""

_USUAL: Final = ("failure", "recovery")
_KEYS: Final = ("urls", "urls_file", "on")
_NOT_GOOD: Final = ("failed", "interrupted", "missed")
_OFF: Final = logging.CRITICAL + 1

_SECONDS: Final = 30.0
"""The time for the notices of a run, since no other pipeline runs meanwhile."""

MISSING: Final = "Notices need Apprise: run `pip install 'aico-lab[notify]'`."


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """The addresses of notices, and the ends of a run that these are about.

    Attributes:
        on: The ends of a run, of `EVENTS`.
        urls: The addresses in the pipeline's file, as Apprise has them.
        urls_file: A file with one address a line, or None.
    """

    on: tuple[str, ...]
    urls: tuple[str, ...] = field(default=(), repr=False)
    urls_file: Path | None = None

    def addresses(self) -> list[str]:
        """Return all addresses.

        Raises:
            InvalidValue: The file cannot be read, or there is no address.
        """
        found = list(self.urls)
        if self.urls_file is not None:
            try:
                lines = self.urls_file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                raise InvalidValue(
                    f"The addresses of notices cannot be read from {self.urls_file}: check its "
                    "name and its permissions."
                ) from None
            found += [line for one in lines if (line := one.strip()) and not line.startswith("#")]
        if not found:
            raise InvalidValue(f"{self.urls_file} has no address: write one a line.")
        return found


def read_notify(given: object, pipeline: Path) -> NotifySettings | None:
    """Return the settings of the table `notify` of a pipeline, or None if there is none.

    Raises:
        InvalidValue: A value is missing, or has the wrong type.
        UnknownName: A name is unknown.
    """
    if given is None:
        return None
    if not isinstance(given, dict):
        raise InvalidValue("[notify] must be a table with urls or urls_file.")
    for name in given:
        if name not in _KEYS:
            end = did_you_mean(name, _KEYS, f"; it has {', '.join(_KEYS)}.")
            raise UnknownName(f"[notify] has no {name!r}{end}")
    on = _texts("on", given.get("on", list(_USUAL)))
    for event in on:
        if event not in EVENTS:
            end = did_you_mean(event, EVENTS, f"; these are: {', '.join(EVENTS)}.")
            raise UnknownName(f"[notify] cannot tell 'on' {event!r}{end}")
    urls = _texts("urls", given["urls"]) if "urls" in given else ()
    file = given.get("urls_file")
    if file is not None and (not isinstance(file, str) or not file):
        raise InvalidValue("'urls_file' of [notify] must be the name of a file.")
    if not urls and file is None:
        raise InvalidValue("[notify] needs 'urls' or 'urls_file'.")
    return NotifySettings(on, urls, pipeline.parent / Path(file).expanduser() if file else None)


def _texts(name: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not given or not all(type(one) is str for one in given):
        raise InvalidValue(f"{name!r} of [notify] must be a list of texts.")  # never quoted
    return tuple(given)


def check_notify(settings: NotifySettings) -> Iterator[Exception]:
    """Yield the errors for everything that would keep a notice from being sent."""
    if find_spec("apprise") is None:
        yield LibraryMissing(MISSING)
        return
    try:
        addresses = settings.addresses()
    except InvalidValue as wrong:
        yield wrong
        return
    for number, address in enumerate(addresses, 1):
        if not _is_known(address):
            yield InvalidValue(
                f"Address {number} of {len(addresses)} of [notify] is not one that Apprise knows."
            )


def tell_end(
    connection: Connection,
    pipeline: Pipeline,
    run: PipelineRun,
    before: list[PipelineRun],
    error: Exception | None = None,
) -> None:
    """Send the notice of the end of a run, if one is wanted; what fails is a warning of the run.

    Args:
        connection: The primary database.
        pipeline: The pipeline.
        run: The run, which is recorded.
        before: The run of the pipeline before it, if there is one.
        error: The error that ended it, or None.
    """
    settings = pipeline.notify
    if settings is None:
        return
    recovered = error is None and bool(before) and before[0].status in _NOT_GOOD
    if error is not None:
        events, ended = {"failure"}, "was missed" if run.status == "missed" else "failed"
    elif recovered:
        events, ended = {"recovery", "success"}, "works again"
    else:
        events, ended = {"success"}, "is done"
    if not events & set(settings.on):
        return
    lines = [f"Run {run.run_id}, started {run.started_at[:16].replace('T', ' ')} UTC."]
    if error is not None:
        # The text of an error may hold a path, or the words of a notebook's cell.
        failed = [f"{one.id} (tries: {one.tries})" for one in run.steps if one.status == "failed"]
        where = ", ".join(failed) or "before the first step"
        lines.append(f"Failed: {where}; {_kind(error)}")
    if count := sum(len(step.warnings) for step in run.steps):
        lines.append(f"Warnings: {count}.")
    lines.append(f"See `aico-lab pipeline show {run.run_id}`.")
    problems = _send(
        settings, f"aico-lab: {pipeline.name} {ended}", "\n".join(lines), is_good=error is None
    )
    if problems:
        run.warnings = [*run.warnings, *problems]
        note_safely(run, connection)


def _kind(error: Exception) -> str:
    """Return the sentence of an error's class, which is the same for all errors of it."""
    if not isinstance(error, AicoLabError):
        return "an unexpected error."
    return (type(error).__doc__ or type(error).__name__).partition("\n")[0]


def _send(settings: NotifySettings, title: str, body: str, *, is_good: bool) -> list[str]:
    """Send a notice to all addresses, and return a sentence for each one that failed."""
    if find_spec("apprise") is None:
        return [MISSING]
    try:
        addresses = settings.addresses()
    except InvalidValue as wrong:
        return [str(wrong)]

    import apprise

    kind = apprise.NotifyType.SUCCESS if is_good else apprise.NotifyType.FAILURE
    sent: dict[int, bool] = {}

    def deliver(number: int, address: str) -> None:
        with suppress(Exception):  # a plugin may raise anything; a notice never fails a run
            # Not by Apprise's own pool of threads, which the end of this process would wait for.
            sent[number] = all(
                [one.notify(body=body, title=title, notify_type=kind) for one in _to(address)]
                or [False]
            )

    threads = [Thread(target=deliver, args=given, daemon=True) for given in enumerate(addresses, 1)]
    late = time.monotonic() + _SECONDS
    with _quiet(threads):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(late - time.monotonic(), 0))
    return [
        f"Notice {number} of {len(addresses)} was not sent"
        f"{f' within {_SECONDS:g} s' if thread.is_alive() else ''}: check its address and its "
        "service."
        for number, thread in enumerate(threads, 1)
        if thread.is_alive() or not sent.get(number, False)
    ]


def _to(address: str) -> Any:
    """Return Apprise with one address, or with none if it does not know the address."""
    import apprise

    told = apprise.Apprise(asset=apprise.AppriseAsset(app_id="aico-lab", app_desc="aico-lab"))
    told.add(address)
    return told


def _is_known(address: str) -> bool:
    with _quiet(), suppress(Exception):
        return bool(_to(address))
    return False


@contextmanager
def _quiet(threads: Sequence[Thread] = ()) -> Iterator[None]:
    """Turn off the logs of Apprise, which could show an address, until these threads have ended."""
    logger = logging.getLogger("apprise")
    level = logger.level
    logger.setLevel(_OFF)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if not any(thread.is_alive() for thread in threads):
            logger.setLevel(level)
