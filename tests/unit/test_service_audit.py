"""What the service does is in the audit log: tokens, runs, decisions; and what cannot be recorded is not done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.agents import MultiStepAgent, ToolCallingAgent
from orchestrator.audit import AuditLog, Journal, records_of, verify
from orchestrator.configured import Asked
from orchestrator.errors import AuditError
from orchestrator.events import RunState
from orchestrator.models import ScriptedModel
from orchestrator.service.access import LOCAL
from orchestrator.service.admission import Admission
from orchestrator.service.app_tools import Hosts
from orchestrator.service.live_run import LiveRun, Means
from orchestrator.service.metrics import Metrics
from orchestrator.service.quotas import Accounts
from orchestrator.store import Store, StoredRun, StoredToken
from orchestrator.tools import tool
from tests.unit.scripted_agents import calls, final
from tests.unit.service_parts import run
from tests.unit.test_service_runs import ENDLESS, Running, with_service


def told(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The data of the records of these kinds, with their kind."""
    found = list(records_of(folder / "audit.jsonl"))
    return [{"kind": record.kind, **record.data} for record in found if not kinds or record.kind in kinds]


@asynccontextmanager
async def service_of(now: Running) -> AsyncIterator[Any]:
    """Its methods for tokens."""
    async with grpc.aio.insecure_channel(f"unix:{now.service._where.socket}") as channel:
        yield rpc.ServiceStub(channel)


def unwritable(folder: Path) -> None:
    """From now on nothing can be recorded: the file is not what it was."""
    (folder / "audit.jsonl").write_bytes(b"")


# ------------------------------------------------------------------------------------------------------------ written


def test_runs_are_begun_interrupted_resumed_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids: list[str] = []

    async def test(now: Running) -> None:
        first = await now.start("the first")
        await now.ended(first.id)
        endless = await now.occupied()
        await now.interrupted(endless)
        await now.runs.Resume(pb.ResumeRun(run=endless))
        await now.interrupted(endless)
        ids.extend([first.id, endless])

    with_service(tmp_path, monkeypatch, test)
    first, endless = ids
    runs = told(tmp_path, "run_begun", "run_interrupted", "run_resumed", "run_ended")
    written = [(record["kind"], record["run"]) for record in runs]
    assert written[:6] == [
        ("run_begun", first),
        ("run_ended", first),
        ("run_begun", endless),
        ("run_interrupted", endless),
        ("run_ended", endless),
        ("run_resumed", endless),
    ]
    # It may not have come so far as to begin again. If it has: another thread writes that it was interrupted.
    again = [record for record in written[6:] if record != ("run_begun", endless)]
    assert again == [("run_interrupted", endless), ("run_ended", endless)]
    assert written[-1] == ("run_ended", endless)
    begun, ended = runs[0], runs[1]
    assert (begun["owner"], begun["agent"], begun["task_bytes"], begun["steps"]) == ("local", "default", 9, 0)
    assert (ended["state"], ended["reason"]) == ("succeeded", "")
    assert (runs[3]["by"], runs[4]["state"], runs[4]["reason"]) == ("local", "interrupted", "local")
    everything = told(tmp_path)
    assert (everything[0]["kind"], everything[-1]["kind"]) == ("service_started", "service_stopped")
    assert verify(tmp_path / "audit.jsonl").holds
    assert ENDLESS not in (tmp_path / "audit.jsonl").read_text()


def test_tokens_are_made_revoked_and_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets: list[str] = []

    async def test(now: Running) -> None:
        async with service_of(now) as stub:
            await with_tokens(now, stub)

    async def with_tokens(now: Running, stub: Any) -> None:
        quotas = pb.TokenQuotas(sandboxes=2, run_minutes=0)
        made = await stub.CreateToken(pb.NewToken(name="app", scopes=["runs"], quotas=quotas, expires_after_seconds=60))
        secrets.append(made.token)
        metadata = (("authorization", f"Bearer {made.token}"),)
        for key in ("a", "b"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await now.runs.Start(pb.StartRun(task="x", key=key), metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stub.RevokeToken(pb.TokenName(name="app"))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.RevokeToken(pb.TokenName(name="nobody"))

    with_service(tmp_path, monkeypatch, test)
    limits = {"sandboxes": 2, "cpu_ms": None, "run_ms": 0, "lifetime_ms": 60_000}
    assert told(tmp_path, "token_created", "token_used_up", "token_revoked") == [
        {"kind": "token_created", "token": "app", "by": "local", "scopes": ["runs"], **limits},
        {"kind": "token_used_up", "token": "app", "quota": "run_minutes"},
        {"kind": "token_revoked", "token": "app", "by": "local"},
    ]
    assert secrets[0] not in (tmp_path / "audit.jsonl").read_text()


@pytest.mark.parametrize("approved", [True, False, None], ids=["approved", "refused", "unanswered"])
def test_a_decision_is_recorded_before_it_counts(tmp_path: Path, approved: bool | None) -> None:
    seen: list[Any] = []

    @tool
    def search() -> str:
        """Searches."""
        seen.append(told(tmp_path, "question_decided"))
        return "found"

    async def test() -> None:
        @asynccontextmanager
        async def making(ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
            async def approve(request: Any) -> Any:
                return await ask(Asked("cook", request, ""))

            model = ScriptedModel([calls(("search", {})), final(1)])
            yield ToolCallingAgent([search], model, approve=approve, verbosity_level=-1)

        async with await Store.open(tmp_path / "store.db") as store:
            journal = Journal(AuditLog(tmp_path / "audit.jsonl"))
            seconds = 0.1 if approved is None else 20.0
            means = Means(
                store, Admission(1, 1), Accounts(store), Metrics(), Hosts(), tmp_path, seconds, journal=journal
            )
            stored = await store.add_run(StoredRun("r1", "default", "x", "local"))
            live = LiveRun(stored, LOCAL, means, making, lambda agent, check: agent.astream("x"))
            working = asyncio.create_task(live.work())
            async for event in live.follow(0):
                if b'"approval_asked"' in event.json and approved is not None:
                    live.questions.decide(live.questions.open[0].id, approved, "", "ann")
            await working

    run(test())
    (decided,) = told(tmp_path, "question_decided")
    by = "" if approved is None else "ann"
    assert (decided["run"], decided["approved"], decided["by"]) == ("r1", bool(approved), by)
    assert seen == ([[decided]] if approved else [])


def test_sandboxes_of_apps_are_in_it_with_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")

    async def test(now: Running) -> None:
        async with grpc.aio.insecure_channel(f"unix:{now.service._where.socket}") as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await rpc.SandboxesStub(channel).Create(pb.CreateSandbox(key="k"))

    with_service(tmp_path, monkeypatch, test)
    (refused,) = told(tmp_path, "sandbox_refused")
    assert refused == {"kind": "sandbox_refused", "owner": "local", "error": "EngineUnavailable"}


# --------------------------------------------------------------------------------------------------------- unwritable


def test_what_cannot_be_recorded_is_not_begun_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(now: Running) -> None:
        unwritable(tmp_path)
        started = await now.start("the first")
        ended = await now.ended(started.id)
        assert (ended.state, ended.error.partition(":")[0]) == (pb.Run.STATE_FAILED, "AuditError")
        async with service_of(now) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.CreateToken(pb.NewToken(name="app", scopes=["runs"]))
            (token,) = (await stub.ListTokens(pb.ListTokensRequest())).tokens
        assert dict(refused.value.trailing_metadata() or ())["cellblock-error"] == "AuditError"
        assert token.revoked
        assert (await now.service._store.run(started.id)).steps == 0  # type: ignore[union-attr]

    with_service(tmp_path, monkeypatch, test)


def test_what_ends_something_is_done_though_it_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def before(store: Store, where: Any) -> None:
        await store.add_token(StoredToken("app", "ff", frozenset({"runs"})))

    async def test(now: Running) -> None:
        endless = await now.occupied()
        unwritable(tmp_path)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await now.runs.Interrupt(pb.RunId(id=endless))
        assert dict(refused.value.trailing_metadata() or ())["cellblock-error"] == "AuditError"
        assert (await now.ended(endless)).state == pb.Run.STATE_INTERRUPTED
        with pytest.raises(grpc.aio.AioRpcError):
            await now.runs.Resume(pb.ResumeRun(run=endless))
        assert (await now.service._store.run(endless)).state is RunState.INTERRUPTED  # type: ignore[union-attr]
        async with service_of(now) as stub:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.RevokeToken(pb.TokenName(name="app"))
        assert (await now.service._store.tokens())[0].revoked

    with_service(tmp_path, monkeypatch, test, before)


def test_a_service_without_an_audit_log_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "audit.jsonl").write_text("something else\n")
    (tmp_path / "audit.jsonl").chmod(0o600)

    async def test(now: Running) -> None:
        raise AssertionError("it serves")

    with pytest.raises(AuditError, match="does not end as an audit log does"):
        with_service(tmp_path, monkeypatch, test)
