"""Register schemas where they are defined, and discover those of other packages."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aico_lab.errors import AicoLabError, InvalidValue, SchemaError
from aico_lab.extensions import points
from aico_lab.schema.registry import SchemaRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.schema.versions import Kind

GROUP = "aico_lab.schemas"

Given = TypeVar("Given")


def register_schema(
    name: str,
    kind: Kind,
    *,
    priority: int = 100,
    federated: bool = False,
    registry: SchemaRegistry | None = None,
) -> Callable[[Given], Given]:
    """Return a function or decorator that registers a schema.

    ::

        register_schema("calendar", "plugin")({1: SchemaVersion(...)})

        @register_schema("calendar", "plugin")
        def calendar() -> dict[int, SchemaVersion]: ...

        @register_schema("calendar", "plugin")
        class Calendar:
            versions = {1: SchemaVersion(...)}

    Args:
        name: See `SchemaRegistry.register`.
        kind: 'core' or 'plugin'.
        priority: Schemas of lower priority are applied first.
        federated: Whether the rows of its tracked tables go to the person's other devices.
        registry: The registry to add the schema to; by default the default registry.

    Returns:
        A function whose argument is the versions, a function that returns them, or a class with an
        attribute `versions`; it returns its argument.

    Raises:
        InvalidValue: See `SchemaRegistry.register`.
    """

    def register(given: Given) -> Given:
        versions: Any = given
        if isinstance(given, type):
            versions = getattr(given, "versions", None)
        elif callable(given):
            versions = given()
        if not isinstance(versions, Mapping):
            raise InvalidValue(f"The schema {name!r} has no versions: map numbers to versions.")
        chosen = SchemaRegistry.default if registry is None else registry
        chosen.register(name, kind, versions, priority=priority, federated=federated)
        return given

    return register


def discover(*modules: str) -> list[str]:
    """Import modules that call `register_schema`; a second call changes nothing.

    Args:
        modules: Names of modules; by default the entry points of installed packages in the group
            `aico_lab.schemas`.

    Returns:
        The names of the imported modules or entry points.

    Raises:
        SchemaError: A module cannot be imported.
    """
    found: list[tuple[str, Callable[[], object]]] = [
        (name, partial(importlib.import_module, name)) for name in modules
    ]
    if not modules:
        found = [(entry.name, entry.load) for entry in points(GROUP)]
    for name, load in found:
        try:
            load()
        except AicoLabError:
            raise
        except Exception as error:  # importing another package's module may raise anything
            raise SchemaError(
                f"The plugin {name!r} cannot be imported ({type(error).__name__}: {error}): "
                "repair or uninstall it."
            ) from error
    return [name for name, _ in found]
