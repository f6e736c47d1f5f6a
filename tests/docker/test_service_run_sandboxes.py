"""Real sandboxes of runs, as an app and the operator find them in the service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator import Config, FinalAnswerStep
from orchestrator.agents.steps import NoteStep
from orchestrator.client import Client
from orchestrator.events import ApprovalAsked
from tests.docker.service_process import SECONDS, SETTINGS, ServiceProcess, service_in, steps
from tests.docker.test_service_killed import restart
from tests.waiting import eventually

pytestmark = pytest.mark.docker
TEAM = """
[agents.manager]
kind = "code"
model = "scripted"
managed_agents = ["cook"]

[agents.cook]
model = "scripted"
description = "cooks"
"""


@pytest.fixture(scope="module")
def service(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    first, policy, rest = SETTINGS.partition("[[policy]]")
    with service_in(tmp_path_factory.mktemp("service"), settings=f"{first}{TEAM}{policy}{rest}") as running:
        yield running


@pytest.fixture
def sandboxes(service: ServiceProcess) -> Iterator[Any]:
    with grpc.insecure_channel(service.address) as channel:
        yield rpc.SandboxesStub(channel)


def listed(sandboxes: Any, run: str) -> list[pb.Sandbox]:
    found = sandboxes.List(pb.ListSandboxes(), timeout=SECONDS).sandboxes
    return [one for one in found if one.run == run]


def answered(client: Client, run: str, event: object) -> None:
    if isinstance(event, ApprovalAsked):
        client.runs.decide(run, event.question, True)


def test_it_is_taken_back_between_steps_and_the_agent_goes_on_with_what_is_there(
    service: ServiceProcess, sandboxes: Any
) -> None:
    with service.client() as client:
        begun = client.runs.start(steps("x = 1", "y = 2", "final_answer(['x' in globals(), y])"), agent="careful")
        events, asked = [], 0
        for event in client.runs.follow(begun.id):
            events.append(event)
            if isinstance(event, ApprovalAsked) and (asked := asked + 1) == 2:
                (one,) = listed(sandboxes, begun.id)
                assert (one.owner, one.state, one.executions) == ("local", pb.Sandbox.STATE_IDLE, 1)
                assert client.runs.get(begun.id).sandbox == one.id
                kept = sandboxes.ListCheckpoints(pb.SandboxId(id=one.id), timeout=SECONDS).checkpoints
                first = next(state for state in kept if state.execution_count == 0)
                which = pb.Which(sandbox=one.id, number=first.number, container=first.container)
                sandboxes.Rollback(pb.RollbackTo(sandbox=one.id, key="back", which=which), timeout=SECONDS)
            answered(client, begun.id, event)
        assert events[-1] == FinalAnswerStep([False, 2])
        (note,) = [event.note for event in events if isinstance(event, NoteStep)]
        assert "as they were in the beginning" in note
        assert listed(sandboxes, begun.id) == []


@pytest.mark.parametrize("question", [2, 3], ids=["right after", "a step later"])
def test_one_that_was_taken_back_is_as_it_was_after_kill_9_too(tmp_path: Path, question: int) -> None:
    """It is the same sandbox, with the state that it was taken back to, or that the step has left that ran then."""
    codes = ("x = 1", "y = 2\nmade = [print]", "final_answer(['x' in globals(), y, made == [print]])")
    with service_in(tmp_path) as service, service.client() as client:
        begun = client.runs.start(steps(*codes), agent="careful")
        events: list[object] = []
        names: list[str] = []
        again = threading.Thread(target=restart, args=(service,))
        for event in client.runs.follow(begun.id):
            events.append(event)
            if not isinstance(event, ApprovalAsked):
                continue
            with grpc.insecure_channel(service.address) as channel:
                (one,) = listed(rpc.SandboxesStub(channel), begun.id)
                names.append(one.name)
                if len(names) == 2:
                    back = pb.RollbackTo(sandbox=one.id, key="back", before_last=True)
                    rpc.SandboxesStub(channel).Rollback(back, timeout=SECONDS)
            if len(names) == question:
                again.start()
            else:
                client.runs.decide(begun.id, event.question, True)
        again.join(SECONDS)
    assert events[-1] == FinalAnswerStep([False, 2, True])
    assert len(set(names)) == 1
    assert len([event for event in events if isinstance(event, NoteStep)]) == 1


def test_those_of_a_team_are_listed_and_only_an_interruption_reaches_code_that_runs(
    service: ServiceProcess, sandboxes: Any
) -> None:
    task = steps("print('on')\nwhile True: pass", "final_answer('eaten')")
    with service.client() as client:
        begun = client.runs.start(steps(f"meal = cook(task={task!r})", "final_answer(meal)"), agent="manager")
        eventually(lambda: len(listed(sandboxes, begun.id)) == 2, "the manager's and the cook's")
        managers, cooks = listed(sandboxes, begun.id)
        eventually(lambda: listed(sandboxes, begun.id)[1].state == pb.Sandbox.STATE_BUSY, "the cook is at work")
        assert client.runs.get(begun.id).sandbox == managers.id
        assert (managers.tool_names, cooks.tool_names) == (["cook"], [])
        assert sandboxes.Isolation(pb.SandboxId(id=cooks.id), timeout=SECONDS).json.startswith(b"{")
        for call, request in (
            (sandboxes.ListCheckpoints, pb.SandboxId(id=managers.id)),
            (sandboxes.Rollback, pb.RollbackTo(sandbox=managers.id, key="k", before_last=True)),
            (sandboxes.Close, pb.SandboxId(id=cooks.id)),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=SECONDS)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        sandboxes.Interrupt(pb.SandboxId(id=cooks.id), timeout=SECONDS)
        events = list(client.runs.follow(begun.id))
        assert isinstance(events[-1], FinalAnswerStep)
        assert "eaten" in events[-1].output
        assert listed(sandboxes, begun.id) == []
    exported = service.cellblock("runs", "export", begun.id).stdout
    for kind, count in (("sandbox_started", 2), ("sandbox_ended", 2), ("execution_finished", 4)):
        assert exported.count(f'"kind": "{kind}"') == count, kind


def test_a_branch_has_its_state_and_none_of_its_tools(service: ServiceProcess, sandboxes: Any) -> None:
    called: list[str] = []

    def look_up(word: str) -> str:
        """Looks up a word.

        Args:
            word: which one
        """
        called.append(word)
        return word

    waiting: list[ApprovalAsked] = []
    told = b""
    with service.client() as client:
        begun = client.runs.start(steps("x = look_up('a')", "final_answer(look_up('b'))"), "careful", tools=[look_up])
        for event in client.runs.follow(begun.id):
            if not isinstance(event, ApprovalAsked):
                continue
            waiting.append(event)
            if len(waiting) == 1:
                client.runs.decide(begun.id, event.question, True)
            elif len(waiting) == 2:  # the second step's, which waits until the branch has had its turn
                (one,) = listed(sandboxes, begun.id)
                branch = sandboxes.Fork(pb.ForkAt(sandbox=one.id, key="fork"), timeout=SECONDS)
                assert (list(one.tool_names), list(branch.tool_names)) == (["look_up"], [])
                request = pb.Execution(sandbox=branch.id, key="b", code=b"print(f'x is {x}')\nlook_up('c')")
                executing = sandboxes.Execute(request, timeout=SECONDS)
            else:  # the rule that executions are asked about holds in the branch, too
                client.runs.decide(begun.id, event.question, True)
                told = b"".join(piece.json for piece in executing)
                client.runs.decide(begun.id, waiting[1].question, True)
    assert b"x is a" in told
    assert b"is not granted to this sandbox" in told
    assert called == ["a", "b"]


def test_after_an_end_of_any_kind_none_is_left(service: ServiceProcess, sandboxes: Any, tmp_path: Path) -> None:
    with service.client() as client:
        begun = client.runs.start(steps("print('on')\nwhile True: pass"))
        eventually(lambda: listed(sandboxes, begun.id), "it has a sandbox")
        (one,) = listed(sandboxes, begun.id)
        client.runs.interrupt(begun.id)
        eventually(lambda: not listed(sandboxes, begun.id), "it is gone")
        with pytest.raises(grpc.RpcError) as refused:
            sandboxes.Get(pb.SandboxId(id=one.id), timeout=SECONDS)
        assert "has been closed" in (refused.value.details() or "")
