"""What the service has, as messages of its API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.agents.value_json import written
from orchestrator.client.runs import Question
from orchestrator.client.sandbox_messages import KEY_METADATA, PIECE
from orchestrator.events import RunState
from orchestrator.store import StoredRun

MAX_LIST = 4_000_000  # bytes of a list: it has to fit into one message
_STATES = {
    RunState.QUEUED: pb.Run.STATE_QUEUED,
    RunState.RUNNING: pb.Run.STATE_RUNNING,
    RunState.WAITING: pb.Run.STATE_WAITING,
    RunState.SUCCEEDED: pb.Run.STATE_SUCCEEDED,
    RunState.FAILED: pb.Run.STATE_FAILED,
    RunState.INTERRUPTED: pb.Run.STATE_INTERRUPTED,
}


def metadata_of(context: Any) -> dict[str, Any]:
    """What came with a call."""
    return dict(context.invocation_metadata() or ())


def key_of(context: Any) -> str:
    """The key of a request whose message has no field for it."""
    return str(metadata_of(context).get(KEY_METADATA, ""))


def pieces(number: int, time: float, data: bytes) -> Iterator[pb.Event]:
    """An event, in as many messages as it takes; all have its number."""
    for start in range(0, max(len(data), 1), PIECE):
        more = start + PIECE < len(data)
        yield pb.Event(number=number, time=time, json=data[start : start + PIECE], more=more)


def run_message(run: StoredRun, questions: Sequence[Question], *, can_resume: bool, sandbox: str) -> pb.Run:
    """A run as it is now; ``sandbox`` is the id of the one that it works in, if any."""
    return pb.Run(
        id=run.id,
        agent=run.agent,
        task=run.task,
        state=_STATES[run.state],
        owner=run.owner,
        created=run.created,
        started=run.started,
        ended=run.ended,
        steps=run.steps,
        events=run.events,
        input_tokens=run.input_tokens,
        output_tokens=run.output_tokens,
        error=run.error,
        answer=run.answer if len(run.answer) <= PIECE else b"",  # a longer one is in its event
        can_resume=can_resume,
        sandbox=sandbox,
        questions=map(_question, questions),
    )


def _question(question: Question) -> pb.Question:
    return pb.Question(
        id=question.id,
        asked=question.asked,
        deadline=question.deadline,
        tool=question.tool,
        arguments=json.dumps(written(dict(question.arguments or {}))).encode(),
        code=question.code,
        agent=question.agent,
        reason=question.reason,
    )
