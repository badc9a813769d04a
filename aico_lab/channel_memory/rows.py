"""Rows that can be read by attribute, and by key like SQLite's own rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class Row(Mapping[str, Any]):
    """A frozen dataclass whose fields are its keys: `row.content` is `row["content"]`."""

    __slots__ = ()

    _aliases: ClassVar[tuple[str, ...]] = ()
    """Properties that are also keys."""

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> tuple[str, ...]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return (*(field.name for field in fields), *self._aliases)
