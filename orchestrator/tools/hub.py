"""Tools to and from folders and the Hugging Face Hub, laid out as smolagents does: a Space with a ``tool.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.errors import ToolError
from orchestrator.hub import hub_api, hub_failures, push_space
from orchestrator.sanitise import one_line
from orchestrator.tools.as_made import present_arguments
from orchestrator.tools.loading import MAX_CODE, from_code, trust_error
from orchestrator.tools.source import ToolSource, changed_since_made, tool_source
from orchestrator.tools.tool import FunctionTool, Tool

MAX_COLLECTION = 256  # tools of one collection: as many as a sandbox takes

_APP = '''"""Shows the tool in a browser."""

import gradio

from {module} import {entry}

tool = {make}
COMPONENTS = {{"string": "textbox", "integer": "number", "number": "number", "boolean": "checkbox"}}
COMPONENTS |= {{"image": "image", "audio": "audio"}}


def component(schema):
    return COMPONENTS.get(schema.get("type") if isinstance(schema.get("type"), str) else "", "json")


{start} call(*values):
    return {wait}tool(*values)


gradio.Interface(
    call,
    inputs=[component(schema) for schema in tool.inputs.values()],
    outputs=component({{"type": tool.output_type}}),
    title=tool.name,
    description=tool.description,
).launch()
'''
_README = """---
title: {title}
emoji: 🔧
colorFrom: blue
colorTo: indigo
sdk: gradio
app_file: app.py
pinned: false
tags:
- cellblock
- smolagents
- tool
---
"""


def save(
    tool: Tool, output_dir: str | Path, tool_file_name: str = "tool", make_gradio_app: bool = True
) -> tuple[Path, ...]:
    """Writes ``tool.py``, ``requirements.txt`` and, to show it in a browser, ``app.py`` into a folder.

    Gives the files that it has written.

    Raises:
        ToolError: the tool cannot be written down (see ``tool_source``), was made with arguments or changed since, or
            ``tool_file_name`` is no module's name.
    """
    if not tool_file_name.isidentifier() or tool_file_name == "app":
        raise ToolError(
            f"tool_file_name is {tool_file_name!r}; it must be a module's name, such as 'tool', and not 'app'"
        )
    files = _files(tool, tool_file_name, make_gradio_app)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return tuple(folder / name for name in files)


def _files(tool: Tool, module: str, with_app: bool) -> dict[str, str]:
    source = tool_source(tool)
    _check_complete(tool)
    files = {f"{module}.py": source.code, "requirements.txt": _requirements(source, with_app)}
    return files | ({"app.py": _app(source, module, tool.is_async)} if with_app else {})


def _check_complete(tool: Tool) -> None:
    """Where it is loaded it is made by its code alone, without arguments."""
    if changed := changed_since_made(tool):
        raise ToolError(
            f"tool {tool.name} cannot be saved: its {changed[0]} was changed after it was made; change it in its code"
        )
    given = [] if isinstance(tool, FunctionTool) else present_arguments(tool)
    if given:
        raise ToolError(
            f"tool {tool.name} cannot be saved: it was made with {', '.join(given)}, or these were changed since, "
            "which its file would not tell; make them the defaults in its code"
        )


def _requirements(source: ToolSource, with_app: bool) -> str:
    return "".join(f"{name}\n" for name in sorted({*source.requirements, *(["gradio"] if with_app else [])}))


def _app(source: ToolSource, module: str, is_async: bool) -> str:
    make = f"{source.entry}()" if source.is_class else source.entry
    start, wait = ("async def", "await ") if is_async else ("def", "")
    return _APP.format(module=module, entry=source.entry, make=make, start=start, wait=wait)


def push_to_hub(
    tool: Tool,
    repo_id: str,
    commit_message: str = "Upload tool",
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Saves the tool as a Space of the hub, which is made if it is not there. Gives the commit's address.

    Args:
        tool: which.
        repo_id: "owner/name", or "name" for one's own.
        commit_message: of the commit.
        private: whether only its owner sees it, if it is made; None for what is usual for the owner.
        token: None for the one that is stored on this machine.
        create_pr: whether the files go into a pull request.

    Raises:
        ConfigError: huggingface_hub is missing.
        ToolError: the tool cannot be saved (see ``save``). Nothing has been sent.
        ToolUnavailable: the hub refuses or cannot be reached.
    """
    files = {name: text.encode() for name, text in _files(tool, "tool", with_app=True).items()}
    files["README.md"] = _README.format(title=tool.name).encode()
    return push_space(files, repo_id, commit_message, private, token, create_pr)


def from_hub(
    repo_id: str, token: str | None = None, trust_remote_code: bool = False, revision: str | None = None, **kwargs: Any
) -> Tool:
    """The tool in the ``tool.py`` of a Space.

    Args:
        repo_id: "owner/name".
        token: None for the one that is stored on this machine.
        trust_remote_code: has to be True, as the code runs on the host.
        revision: a branch or commit. A branch may have other code tomorrow; a commit's id does not.
        kwargs: the arguments of the tool's class.

    Raises:
        ConfigError: it is not trusted, or huggingface_hub is missing.
        ToolError: the code does not define one tool.
        ToolUnavailable: there is no such Space or file, or the hub cannot be reached.
    """
    if trust_remote_code is not True:
        raise trust_error(f"loading a tool from the hub ({one_line(repo_id, 100)})")
    api = hub_api(token)
    with hub_failures(repo_id):
        file = Path(api.hf_hub_download(repo_id, "tool.py", repo_type="space", revision=revision))
        if file.stat().st_size > MAX_CODE:
            raise ToolError(f"the tool.py of {repo_id} has more than {MAX_CODE:,} bytes")
        code = file.read_text(encoding="utf-8")
    return from_code(code, trust_remote_code=True, **kwargs)


def load_tool(
    repo_id: str,
    model_repo_id: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
    **kwargs: Any,
) -> Tool:
    """``Tool.from_hub``, with ``model_repo_id`` as another argument of the tool's class if it is given."""
    more = {} if model_repo_id is None else {"model_repo_id": model_repo_id}
    return from_hub(repo_id, token=token, trust_remote_code=trust_remote_code, **more, **kwargs)


def collection(slug: str, token: str | None = None, trust_remote_code: bool = False) -> list[Tool]:
    """The tools of the Spaces in a collection of the hub, in its order. See ``from_hub``."""
    if trust_remote_code is not True:
        raise trust_error(f"loading the tools of a collection of the hub ({one_line(slug, 100)})")
    api = hub_api(token)
    with hub_failures(slug):
        found = api.get_collection(slug)
    spaces = [item.item_id for item in found.items if item.item_type == "space"]
    if len(spaces) > MAX_COLLECTION:
        raise ToolError(f"the collection {one_line(slug, 100)} has {len(spaces)} Spaces; at most {MAX_COLLECTION}")
    return [from_hub(space, token=token, trust_remote_code=True) for space in spaces]
