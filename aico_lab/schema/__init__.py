"""The schema of the primary database: versions, migrations, plugins, and the change feed.

::

    from aico_lab.schema import SchemaRegistry, SchemaVersion, register_schema

    SchemaRegistry.apply_core_schemas(connection)
    SchemaRegistry.apply_plugin_schema("calendar", connection)
    SchemaRegistry.remove_plugin_schema("calendar", connection)
"""

from aico_lab.schema.core import CORE
from aico_lab.schema.discovery import register_schema
from aico_lab.schema.registry import SchemaRegistry, SchemaVersion

__all__ = ["CORE", "SchemaRegistry", "SchemaVersion", "register_schema"]

SchemaRegistry.default = CORE
