"""An agent as the files of a folder, laid out as smolagents does. No I/O.

agent.json  prompts.yaml  requirements.txt  app.py  tools/<name>.py  managed_agents/<name>/…
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from orchestrator.agents.sharing.reading import written_agent
from orchestrator.agents.sharing.registry import MODELS, TOOLS
from orchestrator.agents.sharing.saved import SavedAgent
from orchestrator.tools.source import PACKAGE

AGENT, PROMPTS, REQUIREMENTS, APP = "agent.json", "prompts.yaml", "requirements.txt", "app.py"

_APP = '''"""Shows the agent in a browser. It needs a Docker engine for the code that it writes."""

from pathlib import Path

from orchestrator import {kind}
from orchestrator.ui import GradioUI

agent = {kind}.from_folder(
    Path(__file__).parent,{trust}{left_out}
)

if __name__ == "__main__":
    GradioUI(agent).launch()
'''
_README = """---
title: {title}
emoji: 🤖
colorFrom: blue
colorTo: indigo
sdk: gradio
app_file: app.py
pinned: false
tags:
- cellblock
- smolagents
- agent
---
"""


def files_of(saved: SavedAgent) -> dict[str, str]:
    """Path -> text."""
    files = _agent_files(saved)
    extras = ",".join(sorted({"gradio", *_extras(saved)}))
    names = [name for name in saved.all_requirements() if name != PACKAGE]
    files[REQUIREMENTS] = "".join(f"{name}\n" for name in [f"{PACKAGE}[{extras}]", *names])
    files[APP] = _app(saved)
    return files


def readme(saved: SavedAgent) -> str:
    """Of a Space of the hub, which reads its head."""
    return _README.format(title=saved.name or "Agent")


def tool_path(name: str) -> str:
    """Where a tool's code is."""
    return f"tools/{name}.py"


def member_path(name: str) -> str:
    """Where a member of the team is."""
    return f"managed_agents/{name}/"


def _agent_files(saved: SavedAgent) -> dict[str, str]:
    data = written_agent(saved)
    files: dict[str, str] = {}
    prompts = data.pop("prompt_templates", None)
    if prompts is not None:
        files[PROMPTS] = yaml.dump(prompts, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=1_000_000)
    for tool in data["tools"]:
        if "code" in tool:
            files[tool_path(tool["name"])] = tool["code"]
            tool["code"] = tool_path(tool["name"])
    data["managed_agents"] = [member.name for member in saved.members]
    for member in saved.members:
        inner = {f"{member_path(member.name)}{path}": text for path, text in _agent_files(member).items()}
        files |= inner
    return {AGENT: json.dumps(data, indent=2, ensure_ascii=False) + "\n", **files}


def _extras(saved: SavedAgent) -> set[str]:
    """Of this package, for models and tools that come along."""
    made = [MODELS[saved.model.kind]] if saved.model else []
    made += [TOOLS[tool.kind] for tool in saved.tools if tool.kind]
    own = {entry.extra for entry in made if entry.extra}
    return own.union(*(_extras(member) for member in saved.members))


def _app(saved: SavedAgent) -> str:
    """What was left out is for whoever runs it to fill in; until then loading says so."""
    trust = "\n    trust_remote_code=True,  # the folder that this file is in"
    tops = sorted({part.partition(".")[0] for part in _left_out(saved)})
    left_out = f"\n    # Left out when it was saved; to be given here: {', '.join(tops)}" if tops else ""
    return _APP.format(kind=saved.kind, trust=trust, left_out=left_out)


def _left_out(saved: SavedAgent) -> set[str]:
    return set(saved.left_out).union(*(_left_out(member) for member in saved.members))


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that people can read and change them; nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_OTHER_BREAKS = re.compile("[\r\x85\u2028\u2029\ufeff]")  # YAML reads them as other characters unless they are escaped


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _OTHER_BREAKS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
