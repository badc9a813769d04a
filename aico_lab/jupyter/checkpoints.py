"""JupyterLab's copies of notebooks as they were saved last, which hold their outputs, in RAM."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from jupyter_server.services.contents.filecheckpoints import AsyncFileCheckpoints

from aico_lab.adapters.sealed import PrivateFolder


class PrivateCheckpoints(AsyncFileCheckpoints):
    """Keeps the copies in a private folder, which goes with the server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._folder = PrivateFolder()

    def checkpoint_path(self, checkpoint_id: str, path: str) -> str:
        """Return the path of the copy of a notebook."""
        name = hashlib.sha256(f"{checkpoint_id}\0{path.strip('/')}".encode()).hexdigest()
        return str(self._folder.path / f"{name}{Path(path).suffix}")
