"""Choose the model of a home's vectors, and open the models of stored vectors again.

The chosen model, and the name by which each model is opened, are rows of the table `system_state`,
so every process uses the same model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.embeddings.encoders import open_encoder
from aico_lab.embeddings.encoders.wordllama import WordLlama
from aico_lab.errors import ModelMissing

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection
    from aico_lab.embeddings.encoders import Encoder

_CHOSEN: Final = "model of vectors"
_NAME: Final = "name of model "


def open_home_encoder(primary: Connection, name: str | None = None) -> Encoder:
    """Return the encoder of a name; by default that of the home's model.

    Raises:
        AicoLabError: See `aico_lab.embeddings.encoders.open_encoder`.
    """
    return open_encoder(name or _read(primary, _CHOSEN))


def reopen_encoder(primary: Connection, model: str) -> Encoder:
    """Return the encoder of stored vectors.

    Args:
        primary: The primary database.
        model: The model as it is stored with the vectors.

    Raises:
        ModelMissing: The model is not on this machine any more, or its files have changed.
        AicoLabError: See `aico_lab.embeddings.encoders.open_encoder`.
    """
    encoder = open_encoder(_read(primary, f"{_NAME}{model}"))
    if encoder.model != model:
        raise ModelMissing(
            f"This was made with the model {model}, which is not where it was: put its files back, "
            "or call explore() with another model."
        )
    return encoder


def choose_model(primary: Connection, name: str) -> bool:
    """Choose the model of a home; return whether the home had another one before.

    Args:
        primary: The primary database.
        name: The model; see `aico_lab.embeddings.encoders`.

    Raises:
        AicoLabError: See `aico_lab.embeddings.encoders.open_encoder`.
    """
    encoder = open_encoder(name)
    before = _read(primary, _CHOSEN) or WordLlama.name
    remember_name(primary, encoder)
    _write(primary, _CHOSEN, encoder.name)
    return encoder.name != before


def remember_name(primary: Connection, encoder: Encoder) -> None:
    """Keep the name by which an encoder was opened, so that `reopen_encoder` finds it."""
    _write(primary, f"{_NAME}{encoder.model}", encoder.name)


def _read(primary: Connection, key: str) -> str | None:
    row = primary.fetch_one("SELECT value FROM system_state WHERE key = ?", [key])
    return None if row is None else row[0]


def _write(primary: Connection, key: str, value: str) -> None:
    if _read(primary, key) != value:
        with primary.transaction():
            primary.execute(
                f"INSERT INTO system_state VALUES (?, ?, {NOW}) ON CONFLICT (key) "
                "DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                [key, value],
            )
