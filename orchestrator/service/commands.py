"""``cellblock serve | stop | status | runs``."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.agents.event_json import event_to_dict
from orchestrator.audit import Broken, entries_of
from orchestrator.client.runs import Question, Run
from orchestrator.config import Config
from orchestrator.configured import ServiceTable, Settings
from orchestrator.errors import ConfigError, ServiceUnavailable
from orchestrator.sanitise import in_words, one_line, sanitise, visible
from orchestrator.service import process
from orchestrator.service.local import answers, ask_service, local_client, status
from orchestrator.service.process import ServicePlaces
from orchestrator.service.tables import MAX_CELL, date, print_table

MAX_LINE = 2000  # characters of a line
FAILED = 1


def add_commands(commands: Any) -> None:
    """These commands, among those of ``cellblock``."""
    serving = commands.add_parser("serve", help="the orchestrator service, until it is told to end")
    serving.add_argument("--background", action="store_true", help="start it, wait until it answers, and leave it")
    serving.set_defaults(command=_serve)
    commands.add_parser("stop", help="end the service in good order").set_defaults(command=_stop)
    commands.add_parser("status", help="how the service is").set_defaults(command=_status)
    commands.add_parser("console", help="a link to the service's page, good once").set_defaults(command=_console)
    _add_runs(commands.add_parser("runs", help="what the service's agents have done"))


def _add_runs(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the newest runs")
    listing.add_argument("--agent", default="", metavar="NAME", help="only its runs")
    listing.add_argument("--search", default="", metavar="TEXT", help="only those with this text in their task")
    listing.add_argument("--limit", type=int, default=20, metavar="N")
    listing.set_defaults(command=_runs_list)
    for name, command, about in (
        ("show", _runs_show, "one run, and its events as lines of text"),
        ("export", _runs_export, "its events as lines of JSON, as they are in the journal, and its audit records"),
        ("interrupt", _runs_interrupt, "have it end, its memory kept"),
        ("resume", _runs_resume, "go on with it from its last finished step"),
    ):
        action = actions.add_parser(name, help=about)
        action.add_argument("id")
        action.set_defaults(command=command)
    for name, about in (("approve", "let a run do what it asks for"), ("refuse", "do not let it")):
        action = actions.add_parser(name, help=about)
        action.add_argument("id")
        action.add_argument("question", help="its id, as `show` tells it")
        action.add_argument("--reason", default="")
        action.set_defaults(command=_runs_decide, approved=name == "approve")


# ------------------------------------------------------------------------------------------------------ the process


def audit_log(config: Config) -> str:
    """The path of the audit log of this user's service; empty if it has none."""
    log = _places(config).audit
    return str(log) if log.exists() else ""


def _places(config: Config) -> ServicePlaces:
    return ServicePlaces.of(config, Settings().current().store)


def _serve(options: argparse.Namespace, config: Config) -> int:
    if options.background:
        return _start(config)
    from orchestrator.service.serve import serve  # what serves takes a while to import

    asyncio.run(serve(Settings(), _places(config)))
    return 0


def _start(config: Config) -> int:
    where = _places(config)
    if (pid := process.running(where.lock)) and answers(config):
        print(f"service: process {pid} runs already")
        return 0
    pid = process.start(where, lambda socket: socket.is_socket() and answers(config))
    print(f"service: process {pid} at {where.socket}; its log: {where.log}")
    return 0


def _stop(options: argparse.Namespace, config: Config) -> int:
    pid = process.stop(ServicePlaces.of(config).lock, process.STOP_SECONDS + _drain())
    print(f"service: process {pid} has ended" if pid else "service: none runs")
    return 0


def _drain() -> float:
    try:
        return Settings().current().service.drain
    except ConfigError:  # a slip in the file is no reason to leave a service running
        return ServiceTable().drain


def _status(options: argparse.Namespace, config: Config) -> int:
    found = status(config)
    if found is None:
        raise ServiceUnavailable("no service answers; 'cellblock serve' or 'make up' starts one")
    up = datetime.timedelta(seconds=round(time.time() - found.started))
    print(f"cellblock {found.version}, up {up}")
    print(f"{found.sandboxes} sandboxes, {found.runs} runs at work, {found.queued} in the queue")
    print(f"agents: {', '.join(one_line(name, MAX_CELL) for name in found.agents)}")
    if found.console:
        print(f"console: {one_line(found.console, MAX_CELL)}")
    return 0


def _console(options: argparse.Namespace, config: Config) -> int:
    print(one_line(ask_service(config, "ConsoleLink", pb.ConsoleLinkRequest()).url, MAX_CELL * 2))
    return 0


# --------------------------------------------------------------------------------------------------------------- runs


def _runs_list(options: argparse.Namespace, config: Config) -> int:
    with local_client(config) as client:
        found = client.runs.list(options.limit, agent=options.agent, search=options.search)
    print_table(("id", "agent", "state", "begun", "steps", "tokens", "task"), map(_cells, found))
    return 0


def _cells(run: Run) -> tuple[str, ...]:
    tokens = str(run.input_tokens + run.output_tokens)
    return (run.id, run.agent, run.state, date(run.created), str(run.steps), tokens, run.task)


def _runs_show(options: argparse.Namespace, config: Config) -> int:
    from orchestrator.agents.printer import RunPrinter

    with local_client(config) as client:
        _print_run(client.runs.get(options.id))
        printer = RunPrinter()
        for event in client.runs.follow(options.id):
            printer.show(event)
    return 0


def _print_run(run: Run) -> None:
    for line in _lines(run):
        print(sanitise(line))


def _quoted(text: str) -> Iterator[str]:
    """Its lines, so that none can be taken for one of ours."""
    yield from (f"  | {line}" for line in text.splitlines() or [""])


def _lines(run: Run) -> Iterator[str]:
    yield f"run {run.id} of {one_line(run.agent, MAX_CELL)}, {run.state}, begun {date(run.created)} by {run.owner}"
    yield "task:"
    yield from _quoted(run.task)
    if run.sandbox:
        yield f"sandbox: {run.sandbox}"
    if run.error:
        yield f"ended by: {one_line(run.error, MAX_LINE)}"
    for question in run.questions:
        yield f"question {question.id}: may {one_line(question.agent, MAX_CELL) or 'it'} do this?"
        yield from _asked(question)


def _asked(question: Question) -> Iterator[str]:
    """All that would be done, and what cannot be seen of it, too."""
    given = in_words(dict(question.arguments)) if question.arguments else ""
    yield from _quoted(visible(f"{question.tool}({given})" if question.tool else question.code))
    if given and not question.tool:
        yield "with the variables"
        yield from _quoted(visible(given))


def _runs_export(options: argparse.Namespace, config: Config) -> int:
    with local_client(config) as client:
        for event in client.runs.follow(options.id):
            print(json.dumps(event_to_dict(event)))  # ASCII: nothing in it can do anything to a terminal
    return _export_audit(_places(config).audit, options.id)


def _export_audit(log: Path, run: str) -> int:
    """The records of the audit log that are about a run, each as it is there, so that its hash can be looked at."""
    for found in entries_of(log) if log.exists() else ():
        if isinstance(found, Broken):
            print(f"cellblock: {log} holds up to line {found.line} only: see 'cellblock audit verify'", file=sys.stderr)
            return FAILED
        if found.data.get("run") == run:
            print(json.dumps({"kind": "audit_record", "record": asdict(found)}))
    return 0


def _runs_interrupt(options: argparse.Namespace, config: Config) -> int:
    with local_client(config) as client:
        _print_run(client.runs.interrupt(options.id))
    return 0


def _runs_resume(options: argparse.Namespace, config: Config) -> int:
    with local_client(config) as client:
        _print_run(client.runs.resume(options.id))
    return 0


def _runs_decide(options: argparse.Namespace, config: Config) -> int:
    with local_client(config) as client:
        client.runs.decide(options.id, options.question, options.approved, options.reason)
    print("approved" if options.approved else "refused")
    return 0
