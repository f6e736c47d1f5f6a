"""Host callables as tools of a sandbox: which are granted, and what the sandbox is told of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Config, parse_size
from orchestrator.errors import ToolError
from orchestrator.policy import ToolPolicy
from orchestrator.sandbox.names import shown, wrong_name

MAX_TOOLS = 256
MAX_DOC = 64 << 10
MAX_SPECS = 2 << 20  # bytes of all that the sandbox is told of its tools: it has to fit into one message
MIN_TIMEOUT, MAX_TIMEOUT = 0.01, 86400  # seconds for one call
_MAX_TEXT = 1000  # of an annotation or a default, as text
_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: pb.Parameter.KIND_POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: pb.Parameter.KIND_POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL: pb.Parameter.KIND_VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY: pb.Parameter.KIND_KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD: pb.Parameter.KIND_VAR_KEYWORD,
}


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A default that is filled in where the tool is, which is not here: how it is shown."""

    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class HostTool:
    """One callable: a plain function, or an object with ``name``, ``description`` and perhaps more of what is here.

    Attributes:
        timeout: seconds for one call, if it has a limit of its own.
        stops_clock: the time of a call does not count as the code's.
        check: binds the arguments of a call to its parameters, and raises TypeError if they are not what it takes.
    """

    name: str
    doc: str
    signature: inspect.Signature
    awaitable: bool
    expose_errors: bool
    timeout: float | None
    stops_clock: bool
    check: Callable[..., inspect.BoundArguments]
    call: Callable[..., Any]

    @classmethod
    def of(cls, tool: Callable[..., Any]) -> HostTool:
        """Raises ToolError if it is not callable, has no usable name, or its signature cannot be read."""
        if not callable(tool):
            raise ToolError(f"a tool must be callable; {type(tool).__name__} is not")
        name: Any = getattr(tool, "name", None) or getattr(tool, "__name__", None)
        if wrong := wrong_name(name, "tool"):
            raise ToolError(f"a tool: {shown(name)} {wrong}")
        try:
            signature = inspect.signature(tool)
        except (TypeError, ValueError) as error:
            raise ToolError(f"tool {name}: its signature cannot be read ({error}); wrap it in a function") from None
        doc = getattr(tool, "description", None) or inspect.getdoc(tool) or ""
        return cls(
            name=name,
            doc=str(doc)[:MAX_DOC],
            signature=signature,
            awaitable=is_async(tool),
            expose_errors=getattr(tool, "expose_errors", True),
            timeout=_checked_timeout(name, getattr(tool, "timeout", None)),
            stops_clock=getattr(tool, "stops_clock", False) is True,
            check=getattr(tool, "check_arguments", None) or signature.bind,
            call=tool,
        )

    def spec(self) -> pb.ToolSpec:
        """What the sandbox is told."""
        parameters = [
            pb.Parameter(
                name=p.name,
                kind=_KINDS[p.kind],
                annotation=_annotation(p.annotation),
                has_default=p.default is not inspect.Parameter.empty,
                default_repr="" if p.default is inspect.Parameter.empty else _plain_repr(p.default),
            )
            for p in self.signature.parameters.values()
        ]
        returns = _annotation(self.signature.return_annotation)
        return pb.ToolSpec(
            name=self.name, doc=self.doc, parameters=parameters, returns=returns, awaitable=self.awaitable
        )


def _checked_timeout(name: str, timeout: object) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT:
        raise ToolError(f"tool {name}: timeout is {timeout!r}; it must be {MIN_TIMEOUT:g} to {MAX_TIMEOUT:,} seconds")
    return timeout


def is_async(tool: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    inner = getattr(tool, "__call__", None)  # noqa: B004 (not asking whether it can be called, but how)
    return (
        inspect.iscoroutinefunction(tool)
        or inspect.iscoroutinefunction(inner)
        or bool(getattr(tool, "is_async", False))
    )


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    return (
        inspect.formatannotation(annotation)[:_MAX_TEXT] if not isinstance(annotation, str) else annotation[:_MAX_TEXT]
    )


def _plain_repr(default: object) -> str:
    """Plain values as they print. Anything else, such as an address, a path or a client, is the host's business."""
    if isinstance(default, Elsewhere):
        return default.text[:_MAX_TEXT]
    return repr(default)[:_MAX_TEXT] if _is_plain(default) else "..."


def _is_plain(value: object) -> bool:
    if type(value) in (tuple, list, set, frozenset):
        return all(_is_plain(item) for item in value)  # type: ignore[attr-defined]
    if type(value) is dict:
        return all(_is_plain(part) for pair in value.items() for part in pair)
    return type(value) in (type(None), bool, int, float, str, bytes)


class HostTools:
    """The tools granted to one sandbox, and within which bounds."""

    def __init__(self, tools: Iterable[Callable[..., Any]], config: Config) -> None:
        made = [HostTool.of(tool) for tool in tools]
        self._tools = {tool.name: tool for tool in made}
        if len(self._tools) != len(made):
            raise ToolError("two tools have the same name")
        if len(made) > MAX_TOOLS:
            raise ToolError(f"{len(made)} tools; at most {MAX_TOOLS}")
        self._specs = [tool.spec() for tool in made]
        if (size := sum(spec.ByteSize() for spec in self._specs)) > MAX_SPECS:
            raise ToolError(f"the tools' signatures and descriptions take {size:,} bytes; at most {MAX_SPECS:,}")
        self._timeout = config.tool_timeout
        limits = config.limits
        self.policy = ToolPolicy(frozenset(self._tools), limits.tool_calls, parse_size(limits.tool_bytes))

    @property
    def names(self) -> frozenset[str]:
        """Exactly the names that may be called."""
        return self.policy.granted

    def specs(self) -> list[pb.ToolSpec]:
        """What the sandbox is told of them."""
        return self._specs

    def __getitem__(self, name: str) -> HostTool:
        """The granted tool of that name."""
        return self._tools[name]

    def timeout(self, name: str) -> float | None:
        """Seconds for one call of it: its own, else the sandbox's; None if it takes its own time and has no limit."""
        tool = self._tools[name]
        return None if tool.timeout is None and tool.stops_clock else self.check_timeout(name)

    def check_timeout(self, name: str) -> float:
        """Seconds to check the arguments of one call."""
        own = self._tools[name].timeout
        return self._timeout if own is None else own
