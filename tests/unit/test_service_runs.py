"""Runs of a real service in this process, whose agent calls tools on this host: no container is needed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.agents.record import copy_to_continue
from orchestrator.configured import Settings
from orchestrator.events import RunState
from orchestrator.service import runs
from orchestrator.service.process import ServicePlaces
from orchestrator.service.quotas import Quotas
from orchestrator.service.runs import MAX_RECOVERIES
from orchestrator.service.serve import Service
from orchestrator.store import Store, StoredRun, StoredToken
from tests.unit.chat_server import Answer, Request, completion, serving, tool_call

DEADLINE = 30.0  # seconds for one test
SETTINGS = """
runtime_dir = "{folder}/run"
[service]
store = "{folder}/store.db"
console = ""
max_runs = 1
[models.scripted]
model = "openai:scripted"
api_base = "{url}"
api_key_env = "SCRIPTED_KEY"
[agents.default]
kind = "tool_calling"
model = "scripted"
[agents.careful]
kind = "tool_calling"
model = "scripted"
[[policy]]
agent = "careful"
tool = "tell"
action = "ask"
"""
ENDLESS = "wait for ever"
CALLING = "ask the app"
TELL = pb.ToolSpec(name="tell", description="Tells.", inputs=b"{}", output_type="integer")
HOST = "ab" * 16


def as_asked(request: Request) -> Answer:
    """The last task's own words as the answer; nothing at all to the endless one."""
    tasks = [message["content"] for message in request.body["messages"] if message["role"] == "user"]
    text = json.dumps(tasks)
    if ENDLESS in text:
        return Answer((), ending="hold", head=False)
    if CALLING in text:
        return completion(None, tool_calls=[tool_call("tell", "{}")])
    answer = "second" if "second" in text else "first"
    return completion(None, tool_calls=[tool_call("final_answer", json.dumps({"answer": answer}))])


@dataclass(frozen=True)
class Running:
    service: Service
    channel: grpc.aio.Channel

    @property
    def runs(self) -> Any:
        return rpc.RunsStub(self.channel)

    async def start(self, task: str, **more: Any) -> pb.Run:
        run: pb.Run = await self.runs.Start(pb.StartRun(task=task, **{"key": task[:60].replace(" ", "_"), **more}))
        return run

    async def ended(self, id: str) -> pb.Run:
        async for _ in self.runs.Follow(pb.FollowRun(run=id)):
            pass
        run: pb.Run = await self.runs.Get(pb.RunId(id=id))
        return run

    async def interrupted(self, id: str) -> pb.Run:
        await self.runs.Interrupt(pb.RunId(id=id))
        return await self.ended(id)

    async def occupied(self) -> str:
        """The one slot is."""
        run = await self.start(ENDLESS)
        async for _ in self.runs.Follow(pb.FollowRun(run=run.id)):
            return run.id
        raise AssertionError("it has ended")


def with_service(
    folder: Path, monkeypatch: pytest.MonkeyPatch, test: Any, before: Any = None, meanwhile: Any = None
) -> None:
    """``before`` is given the store, and ``meanwhile`` the address, while the service begins."""

    @asynccontextmanager
    async def running(url: str) -> AsyncIterator[Running]:
        (folder / "cellblock.toml").write_text(SETTINGS.format(folder=folder, url=url))
        settings = Settings(folder / "cellblock.toml")
        where = ServicePlaces.of(settings.current().config, settings.current().store)
        if before:
            async with await Store.open(where.store) as store:
                await before(store, where)
        service = Service(settings, where)
        starting = asyncio.create_task(service.start())
        if meanwhile:
            await meanwhile(where.socket)
        await starting
        try:
            async with grpc.aio.insecure_channel(f"unix:{where.socket}") as channel:
                yield Running(service, channel)
        finally:
            await service.stop()

    async def all_of_it() -> None:
        with serving(as_asked) as server:
            async with asyncio.timeout(DEADLINE), running(server.url) as now:
                await test(now)

    monkeypatch.setenv("SCRIPTED_KEY", "sk-test")
    asyncio.run(all_of_it())


def test_a_start_that_is_given_up_midway_is_a_run_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(now: Running) -> None:
        store = now.service._store
        add, added, may_go_on = store.add_run, asyncio.Event(), asyncio.Event()

        async def slowly(run: StoredRun, key: str = "") -> StoredRun:
            done = await add(run, key)
            added.set()
            await may_go_on.wait()  # as on a disk that is slow
            return done

        monkeypatch.setattr(store, "add_run", slowly)
        call = now.runs.Start(pb.StartRun(key="k", task="the first"))
        await added.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.2)  # for the service to hear that: nothing tells when it has
        may_go_on.set()
        monkeypatch.setattr(store, "add_run", add)
        run = await now.start("the first", key="k")  # the client asks again
        assert (await now.ended(run.id)).state == pb.Run.STATE_SUCCEEDED

    with_service(tmp_path, monkeypatch, test)


def test_a_run_that_would_continue_another_and_has_not_begun_is_not_resumed_as_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(now: Running) -> None:
        first = await now.ended((await now.start("the first")).id)
        occupant = await now.occupied()
        waiting = await now.start("the second", continues=first.id)
        assert not (await now.interrupted(waiting.id)).can_resume
        await now.interrupted(occupant)
        again = await now.ended((await now.start("the second", continues=first.id, key="2")).id)
        assert json.loads(again.answer)["output"] == "second"

    with_service(tmp_path, monkeypatch, test)


@pytest.mark.parametrize("task", ["the first", "the second"])
@pytest.mark.parametrize("then", ["nothing", "resumed", "emptied"])
def test_a_crash_between_taking_over_and_beginning_does_not_give_the_earlier_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, task: str
) -> None:
    """Nor to the same task: much may have changed since."""

    async def test(now: Running) -> None:
        store = now.service._store
        known = await store.run((await now.ended((await now.start("the first")).id)).id)
        assert known
        record = tmp_path / "records" / "left.jsonl"
        copy_to_continue(Path(known.record), record)
        if then == "resumed":
            with record.open("a") as file:
                file.write('{"kind": "resumed", "under_way": false}\n')
        if then == "emptied":  # a run's record is made before its first line
            record.write_bytes(b"")
        await store.add_run(StoredRun("left", "default", task, "local", record=str(record)))
        await now.service._recover()
        run = await now.ended("left")
        assert (run.state, run.answer) == (pb.Run.STATE_INTERRUPTED, b"")
        assert run.error == "interrupted before it began"
        assert not run.can_resume

    with_service(tmp_path, monkeypatch, test)


def test_a_run_that_the_service_does_not_survive_is_not_begun_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(now: Running) -> None:
        store = now.service._store
        known = await store.run((await now.ended((await now.start("the first")).id)).id)
        assert known
        for recoveries in (MAX_RECOVERIES - 1, MAX_RECOVERIES):
            record = shutil.copy(known.record, tmp_path / "records" / f"{recoveries}.jsonl")
            left = StoredRun(
                str(recoveries), "default", "the first", "local", record=str(record), recoveries=recoveries
            )
            await store.add_run(left)
        await now.service._recover()
        assert (await now.ended(str(MAX_RECOVERIES - 1))).state == pb.Run.STATE_SUCCEEDED
        given_up = await now.ended(str(MAX_RECOVERIES))
        assert given_up.state == pb.Run.STATE_INTERRUPTED
        assert f"{MAX_RECOVERIES} times" in given_up.error
        assert given_up.can_resume

    with_service(tmp_path, monkeypatch, test)


def test_a_run_whose_record_is_gone_is_not_continued_and_nothing_is_left_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(now: Running) -> None:
        first = await now.ended((await now.start("the first")).id)
        known = await now.service._store.run(first.id)
        assert known
        os.unlink(known.record)
        with pytest.raises(grpc.aio.AioRpcError, match="its record is gone"):
            await now.start("the second", continues=first.id)
        assert [run.id for run in (await now.runs.List(pb.ListRuns())).runs] == [first.id]

    with_service(tmp_path, monkeypatch, test)


def test_long_tasks_are_in_the_way_of_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(now: Running) -> None:
        await now.occupied()
        long = "ü" * (1 << 19)  # a mebibyte
        started = [(await now.start(long, key=str(number))).id for number in range(6)]
        for limit in (0, 7, 1000):
            listed = (await now.runs.List(pb.ListRuns(limit=limit))).runs
            assert [run.id for run in listed[:6]] == started[::-1]
            assert all(run.task and long.startswith(run.task) for run in listed[:6])
        assert (await now.runs.Get(pb.RunId(id=started[0]))).task == long
        with pytest.raises(grpc.aio.AioRpcError, match="a task is a text"):
            await now.start(long + "ü", key="longer")

    with_service(tmp_path, monkeypatch, test)


def test_a_run_that_is_gone_on_with_after_a_crash_has_the_quotas_of_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def before(store: Store, where: ServicePlaces) -> None:
        where.make_folders()
        await store.add_token(StoredToken("app", "0" * 64, frozenset({"runs"}), Quotas(run_minutes=1).stored()))
        await store.add_usage("app", run_seconds=61)
        record = where.records / "left.jsonl"
        record.write_text("")
        await store.add_run(StoredRun("left", "default", "the first", "app", record=str(record)))

    async def test(now: Running) -> None:
        run = await now.ended("left")
        assert (run.state, "is used up" in run.error) == (pb.Run.STATE_FAILED, True), run.error

    with_service(tmp_path, monkeypatch, test, before)


def test_while_what_a_crash_has_left_is_looked_for_health_is_told_and_no_list_lacks_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, find = asyncio.Event(), Store.unfinished

    async def slowly(store: Store) -> list[StoredRun]:
        await may_go_on.wait()  # as many as it may be
        return await find(store)

    async def before(store: Store, where: ServicePlaces) -> None:
        await store.add_run(StoredRun("left", "default", "the first", "local", RunState.RUNNING))

    async def meanwhile(socket: Path) -> None:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            health = health_pb2_grpc.HealthStub(channel).Watch(HealthCheckRequest(), wait_for_ready=True)
            assert (await health.read()).status == HealthCheckResponse.NOT_SERVING
            assert (await rpc.ServiceStub(channel).Status(pb.StatusRequest())).version
            asked = [rpc.RunsStub(channel).Get(pb.RunId(id="left")), rpc.RunsStub(channel).List(pb.ListRuns())]
            assert not (await asyncio.wait(map(asyncio.ensure_future, asked), timeout=0.2))[0]
            may_go_on.set()
            got, listed = [await one for one in asked]
            assert list(listed.runs) == [got]
            assert (got.state, got.error) == (
                pb.Run.STATE_INTERRUPTED,
                "interrupted, as the service had ended before it began",
            )
            assert (await health.read()).status == HealthCheckResponse.SERVING

    async def test(now: Running) -> None:
        pass

    monkeypatch.setattr(Store, "unfinished", slowly)
    with_service(tmp_path, monkeypatch, test, before, meanwhile)


def test_what_is_too_old_goes_with_its_record_and_one_that_cannot_be_removed_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = tmp_path / "records" / "folder", tmp_path / "records" / "file"

    async def before(store: Store, where: ServicePlaces) -> None:
        folder.mkdir(parents=True)
        file.write_text("")
        for record in (folder, file):
            await store.add_run(
                StoredRun(record.name, "default", "t", "local", RunState.FAILED, 1, 1, 1, record=str(record))
            )

    async def test(now: Running) -> None:
        while file.exists():  # noqa: ASYNC110 - bounded by the test
            await asyncio.sleep(0.01)
        assert list((await now.runs.List(pb.ListRuns())).runs) == []

    with_service(tmp_path, monkeypatch, test, before)


def test_who_goes_on_with_anothers_run_uses_what_is_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def before(store: Store, where: ServicePlaces) -> None:
        where.make_folders()
        for name, used in (("spent", 61), ("app", 0)):
            await store.add_token(StoredToken(name, name, frozenset({"runs"}), Quotas(run_minutes=1).stored()))
            await store.add_usage(name, run_seconds=used)
            record = where.records / name
            record.write_text("")
            run = StoredRun(name, "default", "the first", name, RunState.INTERRUPTED, record=str(record))
            await store.add_run(replace(run, ended=time.time()))

    async def test(now: Running) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="run time of today, 1 minutes, is used up"):
            await now.runs.Resume(pb.ResumeRun(run="spent"))
        assert (await now.runs.Get(pb.RunId(id="spent"))).can_resume
        await now.runs.Resume(pb.ResumeRun(run="app"))
        await now.ended("app")
        assert (await now.service._store.usage("app")).run_seconds > 0
        assert (await now.service._store.usage("local")).run_seconds == 0

    with_service(tmp_path, monkeypatch, test, before)


def test_an_app_is_not_forgotten_while_a_run_that_has_its_functions_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(now: Running) -> None:
        hosts = now.service._hosts
        hosts._seconds = 0.05
        for refused in ({"key": "with space"}, {"agent": "none"}):
            with pytest.raises(grpc.aio.AioRpcError):
                await now.start("the first", tools=[TELL], tool_host=HOST, **refused)
        occupant = await now.occupied()
        waiting = await now.start("the second", tools=[TELL], tool_host=HOST)
        assert (await now.start("the second", tools=[TELL], tool_host=HOST)).id == waiting.id
        while not hosts.host("local", HOST).is_gone:  # noqa: ASYNC110 - bounded by the test
            await asyncio.sleep(0.01)
        assert hosts._hosts["local", HOST].users == 1
        await now.interrupted(waiting.id)
        while hosts._hosts:  # noqa: ASYNC110 - bounded by the test
            await asyncio.sleep(0.01)
        await now.interrupted(occupant)

    with_service(tmp_path, monkeypatch, test)


def test_a_decision_that_comes_again_is_done_and_another_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MAX_DECIDED", 1)

    async def asked(now: Running, key: str) -> tuple[pb.Run, pb.Decision]:
        run = await now.start(CALLING, agent="careful", tools=[TELL], tool_host=HOST, key=key)
        async for event in now.runs.Follow(pb.FollowRun(run=run.id)):
            if json.loads(event.json)["kind"] == "approval_asked":
                break
        (question,) = (await now.runs.Get(pb.RunId(id=run.id))).questions
        return run, pb.Decision(run=run.id, question=question.id, approved=False, reason="no")

    async def test(now: Running) -> None:
        run, decision = await asked(now, "1")
        for _ in range(2):
            await now.runs.Decide(decision)
        await now.interrupted(run.id)
        await now.runs.Decide(decision)
        for other in (pb.Decision(approved=True), pb.Decision(reason="another")):
            changed = pb.Decision()
            changed.CopyFrom(decision)
            changed.MergeFrom(other)
            with pytest.raises(grpc.aio.AioRpcError, match="has ended, and its questions with it"):
                await now.runs.Decide(changed)
        run, next_one = await asked(now, "2")
        await now.runs.Decide(next_one)
        await now.interrupted(run.id)
        assert len(now.service._runs._decided) == 1

    with_service(tmp_path, monkeypatch, test)


def test_a_request_to_resume_that_comes_again_resumes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(now: Running) -> None:
        id = await now.occupied()
        await now.interrupted(id)

        async def resumes(*key: str) -> bool:
            metadata = [("cellblock-key", one) for one in key]
            run: pb.Run = await now.runs.Resume(pb.ResumeRun(run=id), metadata=metadata)
            return run.state in (pb.Run.STATE_QUEUED, pb.Run.STATE_RUNNING)

        assert await resumes("k")
        await now.interrupted(id)
        assert not await resumes("k")
        for other in ("another",), ():
            assert await resumes(*other)
            await now.interrupted(id)

    with_service(tmp_path, monkeypatch, test)


def test_a_run_that_is_resumed_while_it_ends_goes_on_when_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(now: Running) -> None:
        id = await now.occupied()
        await now.runs.Interrupt(pb.RunId(id=id))
        run: pb.Run = await now.runs.Resume(pb.ResumeRun(run=id))
        assert run.state in (pb.Run.STATE_QUEUED, pb.Run.STATE_RUNNING)
        assert not now.service._runs._live[id].is_ending
        await now.interrupted(id)

    with_service(tmp_path, monkeypatch, test)


def test_an_agents_name_of_a_megabyte_is_not_searched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(now: Running) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="so long a name"):
            await now.start("the first", agent="a" * (1 << 20))

    with_service(tmp_path, monkeypatch, test)


def test_a_caller_follows_so_many_runs_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_FOLLOWED", 2)

    async def test(now: Running) -> None:
        occupant = (await now.start(ENDLESS)).id
        calls = [now.runs.Follow(pb.FollowRun(run=occupant)) for _ in range(2)]
        for call in calls:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError, match="are followed with this token") as refused:
            await now.runs.Follow(pb.FollowRun(run=occupant)).read()
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await now.runs.Interrupt(pb.RunId(id=occupant))
        for call in calls:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert (await now.ended(occupant)).state == pb.Run.STATE_INTERRUPTED

    with_service(tmp_path, monkeypatch, test)
