"""Open a page in the browser of the person at this machine."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""Environment variables; without any of them, Linux has at most a browser for terminals."""


def open_page(page: Path) -> bool:
    """Open a page in a browser, and return whether a browser was started."""
    if sys.platform.startswith("linux") and not any(map(os.environ.get, _DISPLAYS)):
        return False
    try:
        return webbrowser.open(page.as_uri())
    except (OSError, webbrowser.Error):
        return False
