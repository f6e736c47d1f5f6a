"""Runs, for the page."""

from __future__ import annotations

from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb
from starlette.responses import JSONResponse, Response

from orchestrator.console import shown, streams
from orchestrator.console.asked import Asked

PAGE = 50  # runs of one list; the page asks for more when somebody wants to see them
MAX_LISTED = 200
MAX_SHOWN_TASK = 300  # characters of a task in a list


async def list_runs(asked: Asked) -> Response:
    """Runs, newest first."""
    limit = asked.query.get("limit", "")
    request = pb.ListRuns(
        limit=min(int(limit), MAX_LISTED) or PAGE if limit.isascii() and limit.isdigit() and len(limit) < 9 else PAGE,
        search=asked.query.get("search", ""),
    )
    found = await asked.runs("List", request)
    return JSONResponse({"runs": [{**shown.run(run), "task": run.task[:MAX_SHOWN_TASK]} for run in found.runs]})


async def get(asked: Asked) -> Response:
    """One run."""
    return JSONResponse(await _run(asked))


async def _run(asked: Asked) -> dict[str, Any]:
    return shown.run(await asked.runs("Get", pb.RunId(id=asked.id)))


async def events(asked: Asked) -> Response:
    """What happens in it, and in the end what has become of it."""
    request = pb.FollowRun(run=asked.id, after=asked.after)
    found = asked.backend.stream(asked.session, "Runs", "Follow", request)
    return await streams.respond(asked.session, found, lambda: _run(asked))


async def start(asked: Asked) -> Response:
    """Begins one."""
    body = asked.body
    request = pb.StartRun(
        key=body.key(),
        agent=body.text("agent"),
        task=body.text("task"),
        continues=body.text("continues"),
        max_steps=body.number("max_steps"),
    )
    return JSONResponse(shown.run(await asked.runs("Start", request)), 201)


async def interrupt(asked: Asked) -> Response:
    """Has it end as soon as it can."""
    return JSONResponse(shown.run(await asked.runs("Interrupt", pb.RunId(id=asked.id))))


async def resume(asked: Asked) -> Response:
    """Goes on with it."""
    return JSONResponse(shown.run(await asked.runs("Resume", pb.ResumeRun(run=asked.id))))


async def decide(asked: Asked) -> Response:
    """Answers a question."""
    body = asked.body
    decision = pb.Decision(
        run=asked.id, question=body.text("question"), approved=body.flag("approved"), reason=body.text("reason")
    )
    await asked.runs("Decide", decision)
    return JSONResponse({})


async def status(asked: Asked) -> Response:
    """The service."""
    found = await asked.backend.ask(asked.session, "Service", "Status", pb.StatusRequest())
    return JSONResponse(shown.status(found))
