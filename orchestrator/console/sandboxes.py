"""Sandboxes, for the page."""

from __future__ import annotations

import json
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb
from starlette.responses import JSONResponse, Response

from orchestrator.console import shown, streams
from orchestrator.console.asked import Asked
from orchestrator.console.backend import Failed


async def list_sandboxes(asked: Asked) -> Response:
    """Those that are open."""
    found = await asked.sandboxes("List", pb.ListSandboxes())
    return JSONResponse({"sandboxes": [shown.sandbox(sandbox) for sandbox in found.sandboxes]})


async def create(asked: Asked) -> Response:
    """A new one, as the settings have it."""
    made = await asked.sandboxes("Create", pb.CreateSandbox(key=asked.body.key()))
    return JSONResponse(shown.sandbox(made), 201)


async def get(asked: Asked) -> Response:
    """One of them."""
    return JSONResponse(shown.sandbox(await asked.sandboxes("Get", _id(asked))))


async def run_code(asked: Asked) -> Response:
    """Runs code, or goes on with the events of the execution that has this key."""
    body = asked.body
    request = pb.Execution(
        sandbox=asked.id, key=body.key(), code=body.text("code").encode(), after=body.number("after") or 0
    )
    found = asked.backend.stream(asked.session, "Sandboxes", "Execute", request)
    return await streams.respond(asked.session, found, _nothing)


async def _nothing() -> dict[str, Any]:
    return {}


async def interrupt(asked: Asked) -> Response:
    """Stops what it runs."""
    return await _done(asked, "Interrupt")


async def close(asked: Asked) -> Response:
    """Closes it."""
    return await _done(asked, "Close")


async def _done(asked: Asked, method: str) -> Response:
    await asked.sandboxes(method, _id(asked))
    return JSONResponse({})


async def isolation(asked: Asked) -> Response:
    """What holds it."""
    found = await asked.sandboxes("Isolation", _id(asked))
    try:
        return JSONResponse({"isolation": json.loads(found.json)})
    except (ValueError, RecursionError):
        raise Failed(502, "ProtocolViolation", "the isolation report cannot be read") from None


# ----------------------------------------------------------------------------------------------------------- state


async def checkpoints(asked: Asked) -> Response:
    """The states that are kept."""
    found = await asked.sandboxes("ListCheckpoints", _id(asked))
    return JSONResponse({"checkpoints": [shown.checkpoint(one) for one in found.checkpoints]})


async def checkpoint(asked: Asked) -> Response:
    """Keeps the present one."""
    request = pb.MakeCheckpoint(sandbox=asked.id, key=asked.body.key(), name=asked.body.text("name"))
    return JSONResponse(shown.checkpoint(await asked.sandboxes("Checkpoint", request)), 201)


async def rollback(asked: Asked) -> Response:
    """Goes back to one."""
    request = pb.RollbackTo(key=asked.body.key(), sandbox=asked.id, which=_which(asked))
    if not request.HasField("which"):
        raise Failed(400, "BadRequest", "it is not said where to go back to")
    done = await asked.sandboxes("Rollback", request)
    told = {"files_restored": done.files_restored, "files_reason": done.files_reason}
    return JSONResponse({"checkpoint": shown.checkpoint(done.checkpoint), **told})


async def fork(asked: Asked) -> Response:
    """Makes a branch, of the present state or of one that is kept."""
    request = pb.ForkAt(sandbox=asked.id, key=asked.body.key(), at=_which(asked))
    return JSONResponse(shown.sandbox(await asked.sandboxes("Fork", request)), 201)


def _which(asked: Asked) -> pb.Which | None:
    number = asked.body.number("number")
    if number is None:
        return None
    return pb.Which(sandbox=asked.id, number=number, container=asked.body.text("container"))


def _id(asked: Asked) -> pb.SandboxId:
    return pb.SandboxId(id=asked.id)
