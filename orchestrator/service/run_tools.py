"""Functions of an app as tools of an agent, for one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.client.tools import MAX_SCHEMA
from orchestrator.errors import ToolError
from orchestrator.service.app_tools import AppTool, Hosts
from orchestrator.tools import Tool
from orchestrator.tools.definition import check_agreement, check_inputs, check_texts


class RunTool(Tool):
    """A function of an app.

    Raises:
        ToolError: the specification is none, or has no schema.
    """

    def __init__(self, spec: pb.ToolSpec, function: AppTool) -> None:
        self.name = spec.name
        self.description = spec.description
        self.inputs = _inputs(spec)
        self.output_type = spec.output_type or "any"
        self.timeout = function.timeout
        self.stops_clock = function.stops_clock
        self._function = function

    async def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Calls it in the app, which fills in what was left out."""
        return await self._function(*args, **kwargs)

    def _complete(self) -> None:
        check_texts(self)
        check_inputs(self.name, self.inputs)
        self.is_async = True
        self.__signature__ = self._function.__signature__
        check_agreement(self.name, self.inputs, self.__signature__)


def _inputs(spec: pb.ToolSpec) -> Mapping[str, Any]:
    what = f"tool {spec.name[:40]!r}"
    if not spec.inputs or len(spec.inputs) > MAX_SCHEMA:
        raise ToolError(f"{what}: for a run it needs a schema of its arguments, of at most {MAX_SCHEMA:,} bytes")
    try:
        inputs = json.loads(spec.inputs)
    except (ValueError, RecursionError):
        raise ToolError(f"{what}: its schema is no JSON") from None
    if not isinstance(inputs, dict):
        raise ToolError(f"{what}: its schema is no object")
    return inputs


class RunTools:
    """The tools of one run's app, which is not forgotten until they are closed.

    Raises:
        ToolError, ConfigError, Overloaded: as ``Hosts.tools``, and ``RunTool``.
    """

    def __init__(self, hosts: Hosts, owner: str, name: str, specs: Sequence[pb.ToolSpec]) -> None:
        functions = hosts.tools(owner, name, specs) if specs else []
        self.tools = [RunTool(spec, function) for spec, function in zip(specs, functions, strict=True)]
        self._let_go = hosts.use(owner, name) if specs else None

    def close(self) -> None:
        """The run has ended, or does not begin. A second time does nothing."""
        let_go, self._let_go = self._let_go, None
        if let_go:
            let_go()
