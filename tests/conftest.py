"""Fixtures of all tests, which use no home, key or setting of the person who runs them."""

from __future__ import annotations

import gc
import io
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aico_lab.cli import run as run_command
from aico_lab.home import slots
from tests import browser, effort
from tests.databases import Homes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aico_lab.lab import Lab

LONGEST = (
    "readme", "jupyterlab", "bench", "real_data", "cli", "sync", "sync_faults", "soundness",
    "pattern_analysis", "page_in_browser", "report_runner", "metrics_coverage", "mart",
    "report_in_browser", "metrics_temporal", "metrics_spark", "damage", "shell",
    "keys_of_every_type", "metrics_claims", "reports", "metrics_far_times", "private_files",
    "metrics_conversation", "metrics_wording", "metrics_exchange", "projections", "relay",
    "dal_load", "import_identity", "notebooks", "metrics_interaction", "foreign", "metrics",
    "words", "federation_simulated", "forgetting", "libsql_vectors", "loose_types", "charts",
    "channel_memory",
)  # fmt: skip
"""The modules that take longest, the longest first."""


LONG = (
    "bench", "channel_memory", "charts_in_browser", "cube", "dal_load", "damage", "devices",
    "embedding_exploration", "explorer", "exports_fuzz", "federation",
    "federation_erasures_simulated", "federation_metrics", "federation_simulated",
    "import_identity", "import_report", "jupyterlab", "key_handover",
    "keys_of_every_type", "leaks", "libsql_vectors", "metrics_coverage", "metrics_far_times",
    "metrics_spark", "metrics_temporal", "metrics_wording", "migrate", "other_programs",
    "page_in_browser", "personality_adaptation", "personality_evidence", "plain_text",
    "plugins", "real_data", "report_in_browser", "report_json", "segmenting_quality",
    "soundness", "sources", "sync_faults", "tables", "tables_fuzz",
)  # fmt: skip
"""The modules whose slow tests are for changes that are about to land."""


NOT_FAST = (
    "at_a_glance", "backup", "broken_off", "cache_inspection", "cache_store",
    "cached_repositories", "chart_details", "cli", "cube", "data_quality", "devices",
    "dictionary", "evolution", "exploration_numbers", "exploration_stored", "exports_aico",
    "exports_damage", "exports_fuzz", "exports_memory", "extensions", "federation",
    "federation_erasures", "federation_erasures_simulated", "federation_privacy",
    "federation_simulated", "first_screen",
    "foreign", "forgetting", "health", "home_model", "import_branches", "import_command",
    "import_deletions", "import_places", "import_report", "import_same_chat", "integrity",
    "jupyterlab", "key_handover", "key_rotation", "key_slots", "keys", "keys_of_every_type",
    "lab", "lan", "mart", "memo", "metrics_cli", "metrics_extras", "metrics_frequent_words",
    "metrics_observation", "mornings", "os_keyring", "personality_proposals", "pipeline",
    "pipeline_notices", "pipeline_runs", "plugins", "private_files", "quarantine",
    "report_json", "report_runs", "rescoring", "review", "schedule", "schedule_jobs",
    "seal_states", "search", "segment_words", "segmenting", "shell", "soundness", "sql_command",
    "start", "sync", "sync_faults", "tables_fuzz", "verify", "watched_folder",
    "written_meanwhile",
)  # fmt: skip
"""The modules that the fast subset leaves out whole: most of their tests open their own homes."""


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in background jobs of scripts: the processes of tests would inherit it, and go on.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    effort.load(fast=_is_fast(config))


def _is_fast(config: pytest.Config) -> bool:
    """Return whether only the fast subset is to run."""
    return "not slow" in config.option.markexpr


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one process more than there are processors, since slow tests also wait."""
    return (os.cpu_count() or 1) + (not _is_fast(config))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the modules that are not in the fast subset, unless they are asked for by name."""
    asked = any(collection_path.name in argument for argument in config.args)
    left_out = collection_path.stem.removeprefix("test_") in NOT_FAST and not asked
    return True if left_out and _is_fast(config) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.stem.removeprefix("test_") in LONG and item.get_closest_marker("slow"):
        item.add_marker("long")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest modules first, so that no process is left alone with one of them."""
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem.removeprefix("test_"), len(place)))


def pytest_collection_finish() -> None:
    gc.freeze()  # imported modules stay: each collection would look through all of them


@pytest.fixture(autouse=True)
def _cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive keys from passphrases cheaply: the usual cost is 0.1 s and 64 MiB each."""
    monkeypatch.setattr(slots, "ARGON2", {"time_cost": 1, "memory_cost": 8, "parallelism": 1})


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AICO_LAB_HOME", "AICO_LAB_KEY_FILE", "AICO_LAB_PASSPHRASE", "AICO_LAB_KEYRING"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "person"))


@pytest.fixture(scope="module", autouse=True)
def _no_browser_is_left() -> Iterator[None]:
    """Close the browser after a module: its event loop would disturb tests of coroutines."""
    yield
    browser.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The path of a home that does not exist yet."""
    return tmp_path / "home"


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    """Homes to copy, made once in this process."""
    return Homes(tmp_path_factory.mktemp("homes"))


@pytest.fixture
def lab(home: Path, homes: Homes) -> Iterator[Lab]:
    """A new, encrypted, empty lab."""
    with homes.open(home) as opened:
        yield opened


@pytest.fixture
def aico_lab(home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line on `home` in another process."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "aico_lab", *arguments, "--home", str(home)],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=240,
            **options,
        )

    return run


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in this process, without the second that a process takes to start."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["aico-lab", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capfd.readouterr()
        umask = os.umask(0o022)  # which the command sets for its process
        os.umask(umask)
        try:
            code = run_command()
        finally:
            os.umask(umask)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


@pytest.fixture
def cli(
    in_process: Callable[..., subprocess.CompletedProcess[str]], home: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line on `home` in this process."""
    return lambda *arguments: in_process(*arguments, "--home", str(home))


def plain_text_files(folder: Path, text: str) -> list[Path]:
    """Return the files below a folder that contain a text in UTF-8, UTF-16 or UTF-32."""
    needles = [text.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-32-le")]
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]
