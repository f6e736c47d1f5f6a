"""Verdicts: may this code import that, may this sandbox call this tool. Default deny, exact names, no I/O.

The verdict on a tool call is given here, on the host, for every call that arrives from a container. The import rules
are stated here and enforced inside the container, where they give clear errors; the container is the boundary.
An approver of the user's own is asked after the rules here have let something pass, in these words.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

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
MAX_RULES_LENGTH = 64 << 10  # characters of all of them; the kernel takes 128 KiB in one argument of a program
MAX_IMPORT_RULES = 1000  # a list longer than this is a mistake, and every rule is sent to every sandbox


# Tool calls of one sandbox at the same time, with those that earlier ones and branches left running: as many threads of
# the host, and their arguments.
MAX_RUNNING = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """Allowed or not, and the reason to show when not. ``rule`` names what refused, for records."""

    allowed: bool
    reason: str = ""
    rule: str = ""


ALLOWED = Verdict(True)


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """An approver is asked: may this code run? ``timeout`` is in seconds; ``variables`` are what it is given."""

    code: str
    timeout: float
    variables: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", MappingProxyType(dict(self.variables)))


@dataclass(frozen=True, slots=True)
class ToolCallRequest:
    """An approver is asked: may this tool be called so?

    ``arguments`` are those that the code gave, by the names of the tool's parameters, and have passed its checks.
    ``execution`` is the count of the execution that calls.
    """

    tool: str
    arguments: Mapping[str, Any]
    execution: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))


Request = ExecutionRequest | ToolCallRequest
Answer = bool | Verdict
Approve = Callable[[Request], Answer | Awaitable[Answer]]
"""Answers a request: True, False, or ``Verdict(False, "why")``; sync or async. Anything else counts as no."""


def import_rules(additional: Iterable[str] = ()) -> tuple[str, ...]:
    """The allowlist of a sandbox: the default list and ``additional``, sorted.

    ``"pkg"`` allows pkg alone, ``"pkg.*"`` its submodules too, ``"*"`` everything that is installed.

    Raises:
        ConfigError: a rule is not of that form.
    """
    if isinstance(additional, str) or not isinstance(additional, Iterable):
        raise ConfigError(f"authorized_imports must be a list of names, not {additional!r}")
    extra = tuple(additional)
    for rule in extra:
        if not isinstance(rule, str) or len(rule) > MAX_RULE_LENGTH or not _RULE.fullmatch(rule):
            raise ConfigError(f"authorized_imports: {rule!r} is not a module name, 'name.*' or '*'")
    rules = tuple(sorted({*DEFAULT_AUTHORIZED_IMPORTS, *extra}))
    if len(rules) > MAX_IMPORT_RULES or sum(map(len, rules)) > MAX_RULES_LENGTH:
        most = f"at most {MAX_IMPORT_RULES}, of {MAX_RULES_LENGTH:,} characters together"
        raise ConfigError(f"authorized_imports: {len(rules)} rules; {most}")
    return rules


def top_level(rules: Iterable[str]) -> tuple[str, ...]:
    """The packages that import rules speak of, sorted; ``*`` for all of them."""
    return tuple(sorted({rule.partition(".")[0] for rule in rules}))


@dataclass(frozen=True, slots=True)
class Spent:
    """What an execution has had of its budgets when it makes another call. ``running``: calls that have not ended."""

    calls: int = 0
    bytes: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """Which tools this sandbox may call: exactly these names, compared as code points. And how much, per execution."""

    granted: frozenset[str]
    max_calls: int
    max_bytes: int

    def review(self, name: str, size: int, spent: Spent) -> Verdict:
        """The verdict on one call with ``size`` bytes of arguments."""
        if name not in self.granted:
            known = ", ".join(sorted(self.granted)) or "none"
            reason = f"tool {name[:100]!r} is not granted to this sandbox; granted: {known}"
            return Verdict(False, reason, "not_granted")
        if spent.calls >= self.max_calls:
            return Verdict(False, f"this execution has used up its {self.max_calls:,} tool calls", "max_calls")
        if spent.running >= MAX_RUNNING:
            reason = f"{spent.running} tool calls of this sandbox run already; wait for some to end"
            return Verdict(False, reason, "max_running")
        return self.review_bytes(f"{name}()", size, spent)

    def review_bytes(self, what: str, size: int, spent: Spent) -> Verdict:
        """Whether ``size`` bytes more may pass between the code and its tools."""
        if spent.bytes + size <= self.max_bytes:
            return ALLOWED
        left = max(0, self.max_bytes - spent.bytes)
        reason = (
            f"{what}: {size:,} bytes do not fit into the {left:,} that are left to this execution's tool calls, of "
            f"{self.max_bytes:,}"
        )
        return Verdict(False, reason, "max_bytes")
