"""What a name may be that code in the sandbox finds something by: a variable, a tool. No I/O."""

from __future__ import annotations

import keyword
import unicodedata

MAX_NAME = 256  # bytes; nobody writes a longer one


def wrong_name(name: object, kind: str) -> str:
    """What is wrong with ``name`` as that of a ``kind``, and what to do about it; empty if it can be one."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        return f"cannot be the name of a {kind}; give it a Python identifier as its name"
    if len(name.encode()) > MAX_NAME:
        return f"takes more than {MAX_NAME} bytes; shorten the name"
    plain = unicodedata.normalize("NFKC", name)
    if plain != name:  # Python reads it so in code, and would not find what is called otherwise
        return f"is {shown(plain)} in Python; name it so"
    if name.startswith("__") and name.endswith("__"):  # __name__ says whose code it is, __builtins__ what it can call
        return "is Python's own; take off the two underscores around it"
    return ""


def shown(name: object) -> str:
    """It in an error."""
    return repr(name[:40]) if isinstance(name, str) else f"a name of type {type(name).__name__}"
