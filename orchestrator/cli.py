"""The command line: ``cellblock exec | run | repl | doctor | ps | gc | image``.

Puts the parts together; decides nothing.

Exit codes: 0 done; 1 the code or the agent failed; 2 wrong usage; 3 cellblock itself could not do it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.agents import CodeAgent, SandboxSettings, sanitise
from orchestrator.config import Config, Limits
from orchestrator.console import RunPrinter
from orchestrator.errors import CellblockError, ConfigError, IsolationError
from orchestrator.models import OpenAIServerModel
from orchestrator.repl import repl
from orchestrator.sandbox import AsyncSandbox, Sandbox
from orchestrator.sandbox.container import collect_garbage, engine_version, list_containers
from orchestrator.stack.__main__ import up
from orchestrator.stack.image import image_tag

FAILED, USAGE, BROKEN = 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        command: Callable[[argparse.Namespace, Config], int] = options.command
        return command(options, Config.load())
    except ConfigError as error:
        return _complain(error, USAGE)
    except CellblockError as error:
        return _complain(error, BROKEN)
    except KeyboardInterrupt:
        return 130  # as a shell reports an interrupted program


def _complain(error: Exception, code: int) -> int:
    print(f"cellblock: {type(error).__name__}: {sanitise(str(error))}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cellblock", description="Run untrusted agent code in a locked-down container."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    execute = commands.add_parser("exec", help="run code in a fresh sandbox, streaming its output")
    execute.add_argument("code", help="Python code, the name of a file, or - for standard input")
    _add_sandbox_options(execute)
    execute.set_defaults(command=_exec)

    run = commands.add_parser("run", help="run an agent on a task, steps shown as they happen")
    run.add_argument("task")
    run.add_argument("--model", help="model of the endpoint (default: the setting, CELLBLOCK_MODEL)")
    run.add_argument("--tools", default="", metavar="MODULE:NAME,...", help="host functions the code may call")
    run.add_argument("--max-steps", type=int, default=20, metavar="N")
    _add_sandbox_options(run)
    run.set_defaults(command=_run)

    session = commands.add_parser("repl", help="an interactive session with checkpoints")
    _add_sandbox_options(session)
    session.set_defaults(command=_repl)

    doctor = commands.add_parser("doctor", help="what isolation is in force, read from inside a container")
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.add_argument("--brief", action="store_true", help="one line")
    doctor.set_defaults(command=_doctor)

    commands.add_parser("ps", help="sandboxes alive, their age and owner").set_defaults(command=_ps)
    commands.add_parser("gc", help="remove what dead owners left behind").set_defaults(command=_gc)

    image = commands.add_parser("image", help="the executor image").add_subparsers(required=True, metavar="ACTION")
    image.add_parser("build", help="build it, unless it is there").set_defaults(command=_image_build)
    return parser


def _add_sandbox_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--imports", default="", metavar="A,B", help="modules to allow besides the default list")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for one execution")
    parser.add_argument("--memory", metavar="SIZE", help="of the sandbox, such as 512m")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _limits(options: argparse.Namespace, config: Config) -> Limits:
    return dataclasses.replace(config.limits, memory=options.memory) if options.memory else config.limits


def _settings(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Of a sandbox, from the options that ``_add_sandbox_options`` adds."""
    return {
        "authorized_imports": _names(options.imports),
        "limits": _limits(options, config),
        "timeout": options.timeout,
        "config": config,
    }


# --------------------------------------------------------------------------------------------------------- commands


def _exec(options: argparse.Namespace, config: Config) -> int:
    code = _source(options.code)
    with Sandbox(**_settings(options, config)) as sandbox:
        execution = sandbox.run_code(code, on_stdout=_writer(sys.stdout), on_stderr=_writer(sys.stderr))
    if execution.error:
        _writer(sys.stderr)(f"{execution.error}\n" if not str(execution.error).endswith("\n") else str(execution.error))
    elif execution.text is not None:
        _writer(sys.stdout)(execution.text + "\n")
    return 0 if execution.ok else FAILED


def _source(argument: str) -> str:
    if argument == "-":
        return sys.stdin.read()
    try:
        path = Path(argument)
        if path.is_file():
            return path.read_text("utf-8")
    except (OSError, ValueError):  # too long or otherwise no file name: then it is code
        pass
    if argument.endswith(".py") and "\n" not in argument:
        raise ConfigError(f"there is no file {argument!r}")
    return argument


def _writer(stream: Any) -> Callable[[str], None]:
    """Writes as it comes: raw to a file or a pipe, made safe for a terminal."""

    def write(text: str) -> None:
        stream.write(sanitise(text) if stream.isatty() else text.encode("utf-8", "replace").decode())
        stream.flush()

    return write


def _run(options: argparse.Namespace, config: Config) -> int:
    if not os.environ.get("OPENAI_API_KEY"):
        raise ConfigError("cellblock run needs a model: set OPENAI_API_KEY, and OPENAI_BASE_URL for another endpoint")
    sandbox = SandboxSettings(limits=_limits(options, config), timeout=options.timeout, config=config)
    agent = CodeAgent(
        tools=[_load_tool(name) for name in _names(options.tools)],
        model=OpenAIServerModel(options.model or config.model),
        additional_authorized_imports=_names(options.imports),
        max_steps=options.max_steps,
        sandbox=sandbox,
    )
    printer = RunPrinter()
    with agent:
        for event in agent.run(options.task, stream=True):
            printer.show(event)
    return 0


def _load_tool(name: str) -> Callable[..., Any]:
    """A function of the operator's own, by ``module:name``."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--tools {name!r}: {error}; write MODULE:FUNCTION") from None
    finally:
        sys.path.pop(0)


def _repl(options: argparse.Namespace, config: Config) -> int:
    return repl(AsyncSandbox(**_settings(options, config)))


def _doctor(options: argparse.Namespace, config: Config) -> int:
    try:
        with Sandbox(config=config) as sandbox:
            isolation = sandbox.isolation()
    except IsolationError as error:
        return _complain(error, FAILED)
    about = {
        "engine": engine_version(config),
        "image": config.image or image_tag(),
        "kernel": isolation.kernel,
        "cgroup": f"v{isolation.cgroup_version}",
        "python": isolation.python_version,
    }
    if options.json:
        layers = [dataclasses.asdict(layer) for layer in isolation.layers]
        print(json.dumps({**about, "layers": layers, "complete": isolation.complete}, indent=2))
    elif options.brief:
        print(f"isolation: all {len(isolation.layers)} layers in force, read from inside a container")
    else:
        table = Table("in force", "layer", "read from inside", title=", ".join(f"{k} {v}" for k, v in about.items()))
        for layer in isolation.layers:
            table.add_row("yes" if layer.in_force else "NO", layer.name, layer.proof)
        Console().print(table)
    return 0


def _ps(options: argparse.Namespace, config: Config) -> int:
    table = Table("session", "container", "age", "owner", "status")
    for found in list_containers(config):
        owner = found.owner.partition(":")[0] + ("" if found.owner_alive else " (dead)")
        table.add_row(found.session, found.id[:12], f"{found.age_seconds:.0f} s", owner, found.status)
    Console().print(table)
    return 0


def _gc(options: argparse.Namespace, config: Config) -> int:
    removed = collect_garbage(config)
    for name in removed:
        print(f"removed {name}")
    print(f"{len(removed)} leftovers removed" if removed else "nothing was left behind")
    return 0


def _image_build(options: argparse.Namespace, config: Config) -> int:
    up(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
