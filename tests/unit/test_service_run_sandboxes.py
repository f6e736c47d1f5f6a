"""Sandboxes that runs work in: listed, looked at, taken back, and left alone where their agent would not know of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.policy import ExecutionRequest
from orchestrator.service.access import LOCAL, hash_of
from orchestrator.store import StoredToken
from tests.unit.console_parts import NARROW, Console, Line, StatefulSandbox
from tests.unit.fake_sandbox import HANG, answered, ran
from tests.unit.scripted_agents import step
from tests.unit.service_parts import bearer

RUNS_ONLY = "cbk_" + "r" * 43
OTHER = "cbk_" + "o" * 43  # may have both, of its own
BUSY = ([step("wait()"), step("final_answer(1)")], [HANG, answered(1)])
ASKING = (
    [step("x = 1"), step("x = 2"), step("final_answer(x)")],
    [ran(), ExecutionRequest("x = 2", 5.0), ran(), answered(1)],
)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    made = Console(tmp_path, {"busy": BUSY, "asking": ASKING})
    for token, name, scopes in ((RUNS_ONLY, "runner", {"runs"}), (OTHER, "other", {"runs", "sandboxes"})):
        made.run(made.store.add_token(StoredToken(name, hash_of(token), frozenset(scopes))))
    made.login()
    yield made
    made.close()


@contextmanager
def until(console: Console, run: str, kind: str) -> Iterator[tuple[Any, Iterator[Line]]]:
    """The first event of that kind, and the stream behind it."""
    with console.stream(f"/api/runs/{run}/events") as lines:
        yield next(line.data["event"] for line in lines if line.data["event"]["kind"] == kind), lines


def of_run(console: Console, run: str) -> dict[str, Any]:
    (found,) = [one for one in console.get("/api/sandboxes").json["sandboxes"] if one["run"] == run]
    return found


def refusal(reply: Any) -> str:
    assert (reply.status, reply.json["error"]) == (409, "SandboxError"), reply.body
    return str(reply.json["message"])


def test_it_is_listed_while_its_run_lives_and_can_be_interrupted(console: Console) -> None:
    run = console.start("busy")
    with until(console, run, "output") as (_, lines):
        one = of_run(console, run)
        assert (one["owner"], one["state"], one["executions"], one["parent"]) == ("local", "busy", 0, "")
        assert console.get(f"/api/runs/{run}").json["sandbox"] == one["id"]
        assert b'cellblock_sandboxes{state="busy"} 1.0' in console.metrics.exposition()
        assert console.get(f"/api/sandboxes/{one['id']}/isolation").json["isolation"]["layers"]
        assert console.post(f"/api/sandboxes/{one['id']}/interrupt").status == 200
        end = list(lines)[-1]
    assert end.data["state"] == "succeeded"  # the execution was stopped, and the agent went on
    assert end.data["sandbox"] == ""
    assert "KeyboardInterrupt" in console.models[run].requests[-1][-1].content
    assert console.get(f"/api/sandboxes/{one['id']}").json["message"] == "this sandbox has been closed"
    assert [other["run"] for other in console.get("/api/sandboxes").json["sandboxes"]] == [""]


def test_what_its_agent_would_not_know_of_is_refused(console: Console) -> None:
    run = console.start("busy")
    with until(console, run, "output"):
        path = f"/api/sandboxes/{of_run(console, run)['id']}"
        with (
            pytest.raises(AssertionError, match="fork it and run code in the branch"),
            console.stream(f"{path}/run", {"code": "x = 0"}) as lines,
        ):
            list(lines)
        assert "fork it and close the branch, or interrupt the run" in refusal(console.post(f"{path}/close"))
        for what, reply in (
            ("take it back", console.post(f"{path}/rollback", {"number": 1, "container": "c" * 16})),
            ("keep its state", console.post(f"{path}/checkpoints", {"name": "x"})),
            ("list its states", console.get(f"{path}/checkpoints")),
            ("fork it", console.post(f"{path}/fork", {})),
        ):
            assert f"is under way in this sandbox: {what} when it has ended, or interrupt it" in refusal(reply)
        (made,) = console.made
        assert made.codes == ["wait()"]
        assert console.post(f"/api/runs/{run}/interrupt").status == 200


def test_it_is_taken_back_while_its_run_waits_and_the_model_is_told(console: Console) -> None:
    run = console.start("asking")
    with until(console, run, "approval_asked") as (asked, lines):
        one = of_run(console, run)
        path = f"/api/sandboxes/{one['id']}"
        assert (one["state"], one["executions"]) == ("idle", 1)
        assert [kept["execution"] for kept in console.get(f"{path}/checkpoints").json["checkpoints"]] == [0, 1]
        assert console.post(f"{path}/rollback", {"number": 1, "container": "c" * 16}).status == 200
        console.post(f"/api/runs/{run}/decide", {"question": asked["question"], "approved": True})
        events = [line.data["event"] for line in lines if line.kind == "event"]
    (note,) = [event for event in events if event["kind"] == "note_step"]
    assert "Variables and files are as they were in the beginning" in note["note"]
    assert note["note"] in console.models[run].requests[-1][-1].content
    assert '"kind": "back", "to": 0, "at": 1' in Path(console.run(console.store.run(run)).record).read_text()


def test_a_branch_of_it_is_whoever_forks_its_own_and_ends_with_the_run(console: Console) -> None:
    run = console.start("asking")
    with until(console, run, "approval_asked") as (_, lines):
        one = of_run(console, run)
        branch = console.post(f"/api/sandboxes/{one['id']}/fork", {}).json
        assert (branch["run"], branch["parent"], branch["owner"]) == (run, one["id"], "local")
        kept: Any = console.registry.get(branch["id"], LOCAL)
        assert isinstance(kept.sandbox, StatefulSandbox)
        kept.sandbox.script = [ran("7")]
        with console.stream(f"/api/sandboxes/{branch['id']}/run", {"code": "x"}) as ended:
            assert list(ended)[-2].data["event"]["execution"]["text"] == "7"
        console.post(f"/api/runs/{run}/interrupt")
        list(lines)
    assert console.get(f"/api/sandboxes/{branch['id']}").json["message"] == "this sandbox has been closed"


def test_it_is_seen_by_whoever_sees_the_run_and_may_have_runs(console: Console, tmp_path: Path) -> None:
    run = console.start("busy")
    with until(console, run, "output"):
        id = of_run(console, run)["id"]
        held: Any = console.registry.get(id, LOCAL)
        held.owner = "runner"  # as if its token had begun the run

        async def asked(token: str, method: str, request: Any) -> Any:
            async with grpc.aio.insecure_channel(f"unix:{tmp_path}/service.sock") as channel:
                try:
                    return await getattr(rpc.SandboxesStub(channel), method)(request, metadata=bearer(token))
                except grpc.aio.AioRpcError as error:
                    return error.code()

        def ask(*what: Any) -> Any:
            return console.run(asked(*what))

        assert [one.id for one in ask(RUNS_ONLY, "List", pb.ListSandboxes()).sandboxes] == [id]
        assert ask(RUNS_ONLY, "Get", pb.SandboxId(id=id)).run == run
        assert ask(RUNS_ONLY, "Fork", pb.ForkAt(sandbox=id, key="k")) is grpc.StatusCode.PERMISSION_DENIED
        assert ask(RUNS_ONLY, "Get", pb.SandboxId(id=console.sandbox_id)) is grpc.StatusCode.NOT_FOUND
        assert list(ask(OTHER, "List", pb.ListSandboxes()).sandboxes) == []
        assert ask(OTHER, "Get", pb.SandboxId(id=id)) is grpc.StatusCode.NOT_FOUND
        held.owner = "narrow"
        assert list(ask(NARROW, "List", pb.ListSandboxes()).sandboxes) == []
        assert ask(NARROW, "Get", pb.SandboxId(id=id)) is grpc.StatusCode.PERMISSION_DENIED
        console.post(f"/api/runs/{run}/interrupt")
