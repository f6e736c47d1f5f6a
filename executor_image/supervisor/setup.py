"""Open, as far as the runner has to know it: the SETUP frame's body."""

from __future__ import annotations

import json

from executor_api.v1 import executor_pb2 as pb


def _parameter(parameter: pb.Parameter) -> dict[str, object]:
    return {
        "name": parameter.name,
        "kind": parameter.kind,
        "annotation": parameter.annotation,
        "default": parameter.default_repr if parameter.has_default else None,
    }


def setup_body(opened: pb.Open) -> bytes:
    """Import rules, tools and environment as JSON; from the host, which is trusted."""
    tools = [
        {
            "name": tool.name,
            "doc": tool.doc,
            "parameters": [_parameter(p) for p in tool.parameters],
            "returns": tool.returns,
            "awaitable": tool.awaitable,
        }
        for tool in opened.tools
    ]
    setup = {
        "import_rules": list(opened.import_rules),
        "tools": tools,
        "final_answer": opened.final_answer,
        "env": dict(opened.env),
        "checkpoint_files": opened.checkpoint_files,
    }
    return json.dumps(setup).encode()
