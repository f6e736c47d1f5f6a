"""How the parts of the stack say what they are doing."""

from __future__ import annotations

from collections.abc import Callable

# Called with one line of text for the user.
Report = Callable[[str], None]
