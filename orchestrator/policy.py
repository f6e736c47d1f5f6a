"""Verdicts: may this code import that, may this sandbox call this tool. Default deny, exact names, no I/O.

The verdict on a tool call is given here, on the host, for every call that arrives from a container. The import rules
are stated here and enforced inside the container, where they give clear errors; the container is the boundary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.errors import ConfigError

# smolagents' list, then what costs nothing to allow: pure computation, no files, no processes, no network.
DEFAULT_AUTHORIZED_IMPORTS: tuple[str, ...] = (
    *("collections", "datetime", "itertools", "math", "queue", "random", "re", "stat", "statistics", "time"),
    *("unicodedata", "json", "functools", "operator", "string", "typing", "dataclasses", "enum", "decimal"),
    *("fractions", "heapq", "bisect", "textwrap", "copy", "uuid", "hashlib", "base64", "calendar", "zoneinfo"),
    "collections.abc",  # smolagents forbids it though "collections" is allowed: a fault, not a protection
)

_RULE = re.compile(r"\*|[^\W\d]\w*(\.[^\W\d]\w*)*(\.\*)?")
MAX_RULE_LENGTH = 500  # characters of one name
MAX_IMPORT_RULES = 1000  # a list longer than this is a mistake, and every rule is sent to every sandbox


@dataclass(frozen=True, slots=True)
class Verdict:
    """Allowed or not, and the reason to show when not."""

    allowed: bool
    reason: str = ""


ALLOWED = Verdict(True)


def import_rules(additional: Iterable[str] = ()) -> tuple[str, ...]:
    """The allowlist of a sandbox: the default list and ``additional``, sorted.

    ``"pkg"`` allows pkg alone, ``"pkg.*"`` its submodules too, ``"*"`` everything that is installed.

    Raises:
        ConfigError: a rule is not of that form.
    """
    if isinstance(additional, str):
        raise ConfigError(f"authorized_imports must be a list of names, not the string {additional!r}")
    extra = tuple(additional)
    for rule in extra:
        if not isinstance(rule, str) or len(rule) > MAX_RULE_LENGTH or not _RULE.fullmatch(rule):
            raise ConfigError(f"authorized_imports: {rule!r} is not a module name, 'name.*' or '*'")
    rules = tuple(sorted({*DEFAULT_AUTHORIZED_IMPORTS, *extra}))
    if len(rules) > MAX_IMPORT_RULES:
        raise ConfigError(f"authorized_imports: {len(rules)} rules; at most {MAX_IMPORT_RULES}")
    return rules


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """Which tools this sandbox may call: exactly these names, compared as code points."""

    granted: frozenset[str]
    max_calls: int = 10_000  # per execution; enough for a loop over a table, not for a flood

    def review(self, name: str, calls_before: int) -> Verdict:
        """The verdict on one call, given how many this execution has made already."""
        if name not in self.granted:
            known = ", ".join(sorted(self.granted)) or "none"
            return Verdict(False, f"tool {name[:100]!r} is not granted to this sandbox; granted: {known}")
        if calls_before >= self.max_calls:
            return Verdict(False, f"this execution has used up its {self.max_calls} tool calls")
        return ALLOWED
