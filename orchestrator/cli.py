"""The command line: ``cellblock exec | run | repl | doctor | ps | gc | audit | image | config | token |
serve | stop | status | runs``.

Puts the parts together; decides nothing.

Exit codes: 0 done; 1 the code, the agent or a check failed; 2 wrong usage; 3 cellblock itself could not do it; 130
interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator import running
from orchestrator.audit import Broken, entries_of, verify
from orchestrator.config import Config, Limits
from orchestrator.configured import commands as configured
from orchestrator.doctor import as_data, brief, diagnose, show
from orchestrator.errors import CellblockError, ConfigError
from orchestrator.repl import repl
from orchestrator.sandbox import AsyncSandbox, Sandbox
from orchestrator.sandbox.leftovers import Listed, collect_garbage, list_containers
from orchestrator.sanitise import one_line, sanitise
from orchestrator.service import commands as service_commands
from orchestrator.service import token_commands
from orchestrator.stack.__main__ import up

FAILED, USAGE, BROKEN = 1, 2, 3
MAX_CELL = 100  # characters of a label in a table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        command: Callable[[argparse.Namespace, Config], int] = options.command
        return command(options, options.load())
    except ConfigError as error:
        return _complain(error, USAGE)
    except CellblockError as error:
        return _complain(error, BROKEN)
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain while it ends
        return FAILED
    except KeyboardInterrupt:
        return running.INTERRUPTED


def _complain(error: Exception, code: int) -> int:
    print(f"cellblock: {type(error).__name__}: {sanitise(str(error))}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cellblock", description="Run untrusted agent code in a locked-down container."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('cellblock')}")
    parser.set_defaults(load=Config.load)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    execute = commands.add_parser("exec", help="run code in a fresh sandbox, streaming its output")
    execute.add_argument("code", help="Python code, the name of a file, or - for standard input")
    _add_sandbox_options(execute)
    execute.set_defaults(command=_exec)

    run = commands.add_parser("run", help="run an agent on a task, steps shown as they happen")
    running.add_arguments(run)
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

    audit = commands.add_parser("audit", help="the audit log").add_subparsers(required=True, metavar="ACTION")
    verifying = audit.add_parser("verify", help="whether the chain of its records holds, and if not, where it breaks")
    verifying.add_argument(
        "--head", default="", metavar="HASH", help="of an earlier 'verify': finds an end that was cut off"
    )
    verifying.set_defaults(command=_audit_verify)
    showing = audit.add_parser("show", help="its records, up to the first that does not hold")
    showing.set_defaults(command=_audit_show)
    for action in (verifying, showing):
        action.add_argument(
            "path", nargs="?", default="", help="the file (default: that of the settings, else the service's)"
        )

    image = commands.add_parser("image", help="the executor image").add_subparsers(required=True, metavar="ACTION")
    image.add_parser("build", help="build it, unless it is there").set_defaults(command=_image_build)
    configured.add_commands(commands)
    token_commands.add_command(commands)
    service_commands.add_commands(commands)
    return parser


def _add_sandbox_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--imports", default="", metavar="A,B", help="modules to allow besides the default list")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for one execution")
    parser.add_argument("--memory", metavar="SIZE", help="of the sandbox, such as 512m")


def _limits(options: argparse.Namespace, config: Config) -> Limits:
    return dataclasses.replace(config.limits, memory=options.memory) if options.memory else config.limits


def _settings(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Of a sandbox, from the options that ``_add_sandbox_options`` adds."""
    return {
        "authorized_imports": running.names(options.imports),
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
    return running.run(options, config, _limits(options, config), running.names(options.imports))


def _repl(options: argparse.Namespace, config: Config) -> int:
    return repl(AsyncSandbox(**_settings(options, config)))


def _doctor(options: argparse.Namespace, config: Config) -> int:
    found = diagnose(config)
    if options.json:
        print(json.dumps(as_data(found), indent=2))
    elif options.brief:
        print(brief(found))
    else:
        show(found, Console(soft_wrap=not sys.stdout.isatty()))
    return 0 if found.ok else FAILED


def _ps(options: argparse.Namespace, config: Config) -> int:
    Console().print(_listed(list_containers(config)))
    return 0


def _listed(containers: Iterable[Listed]) -> Table:
    """As a table. Whoever may make containers writes their labels."""
    table = Table("session", "container", "age", "owner", "status")
    for found in containers:
        owner = found.owner.partition(":")[0] + ("" if found.owner_alive else " (dead)")
        cells = (found.session, found.id[:12], f"{found.age_seconds:.0f} s", owner, found.status)
        table.add_row(*(Text(one_line(cell, MAX_CELL)) for cell in cells))
    return table


def _gc(options: argparse.Namespace, config: Config) -> int:
    removed = collect_garbage(config)
    for name in removed:
        print(f"removed {name}")
    print(f"{len(removed)} leftovers removed" if removed else "nothing was left behind")
    return 0


def _audit_verify(options: argparse.Namespace, config: Config) -> int:
    found = verify(_audit_path(options, config), options.head)
    for line in found.torn:
        print(f"line {line}: cut short by a crash; the record after it accounts for it")
    print(f"{found.records} records hold; head {found.head}")
    return _audit_result(found.broken)


def _audit_show(options: argparse.Namespace, config: Config) -> int:
    for found in entries_of(_audit_path(options, config)):
        if isinstance(found, Broken):
            return _audit_result(found)
        data = " ".join(f"{name}={json.dumps(value)}" for name, value in found.data.items() if value not in ("", None))
        print(sanitise(f"{found.seq} {found.time} {found.sandbox or '-'} {found.kind} {data}"))
    return _audit_result(None)


def _audit_result(broken: Broken | None) -> int:
    if broken is None:
        return 0
    print(f"cellblock: line {broken.line}: {sanitise(broken.reason)}", file=sys.stderr)
    return FAILED


def _audit_path(options: argparse.Namespace, config: Config) -> str:
    path: str = options.path or config.audit or service_commands.audit_log(config)
    if not path:
        raise ConfigError("which audit log? Name the file, or set CELLBLOCK_AUDIT; there is none of a service either")
    return path


def _image_build(options: argparse.Namespace, config: Config) -> int:
    up(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
