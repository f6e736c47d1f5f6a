"""What is recorded: always of a bounded size, never code, arguments, results, or the texts of errors."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import resource
import threading
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.audit import AuditLog, Journal, chain, concern, records, records_of, service_records, verify
from orchestrator.audit.chain import Head
from orchestrator.audit.records import (
    MAX_ITEMS,
    ExecutionBegun,
    ExecutionFinished,
    Happening,
    SandboxEnded,
    SandboxRefused,
    ToolBegun,
    ToolEnded,
    milliseconds,
)
from orchestrator.errors import AuditError
from orchestrator.events import Ending, Execution, ExecutionError, Logs, State, Status, ToolOutcome, Usage
from tests.unit.apart import apart, ordinary_folder

KINDS = [
    kind
    for module in (records, service_records)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Happening) and kind is not Happening
]
SECRET = "sk-canary-1234"
WORST = {
    "str": "\U0010ffff" * 5000,  # twelve bytes each, as JSON
    "int": 2**64 - 1,
    "int | None": 2**64 - 1,
    "bool": False,
    "tuple[str, ...]": ("\U0010ffff" * 5000,) * 1000,
}


def worst(kind: type[Any]) -> Any:
    return kind(**{field.name: WORST[str(field.type)] for field in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_largest_record_of_each_kind_is_one_that_can_be_read_back(kind: type[Any]) -> None:
    happening = worst(kind)
    line, _ = chain.make(
        Head(2**63, "f" * 64), "2026-01-02T03:04:05.000006+00:00", "s" * 30, happening.kind, happening.data()
    )
    record = chain.parse(line)
    assert record.kind == happening.kind
    assert set(record.data) == {field.name for field in dataclasses.fields(kind)}
    assert kind.__doc__


def test_each_kind_is_in_the_guide() -> None:
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    assert [kind.__name__ for kind in KINDS if f"`{worst(kind).kind}`" not in text] == []


def test_what_a_record_concerns_is_of_the_task_that_it_is_written_in(tmp_path: Path) -> None:
    journal = Journal(AuditLog(tmp_path / "a.jsonl"), "s1")

    async def work(run: str) -> None:
        concern(run=run, owner="app", by="")
        await asyncio.create_task(journal.record(SandboxEnded(run)))

    async def test() -> None:
        await asyncio.gather(work("r1"), work("r2"))
        await journal.record(SandboxEnded("nobody's"))

    asyncio.run(test())
    data = {record.data["reason"]: dict(record.data) for record in records_of(tmp_path / "a.jsonl")}
    assert data == {
        "r1": {"reason": "r1", "run": "r1", "owner": "app"},
        "r2": {"reason": "r2", "run": "r2", "owner": "app"},
        "nobody's": {"reason": "nobody's"},
    }


def test_the_kinds_are_named_after_the_classes() -> None:
    assert SandboxEnded("closed").kind == "sandbox_ended"
    assert len({worst(kind).kind for kind in KINDS}) == len(KINDS)


@given(st.text(max_size=2000), st.lists(st.text(max_size=300), max_size=2 * MAX_ITEMS))
def test_a_text_that_is_short_is_whole_and_a_long_one_is_cut(text: str, items: list[str]) -> None:
    kept = records._bounded(text)
    assert kept == text or (kept.endswith("…") and text.startswith(kept[:-1]))
    assert kept == text or len(chain.canonical(text)) > records.MAX_TEXT
    assert len(records._bounded(tuple(items))) == min(len(items), MAX_ITEMS)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0015, 2), (-1.0, 0), (float("nan"), 0), (float("inf"), 10**12), (1e300, 10**12)]
)
def test_times_of_a_hostile_executor_are_whole_and_bounded(seconds: float, told: int) -> None:
    assert milliseconds(seconds) == told


def test_no_text_of_the_code_its_errors_or_its_tools_is_recorded() -> None:
    outcome = ToolOutcome(1, "tool", f"ValueError: {SECRET}", 0.1, Ending.FAILED)
    execution = Execution(
        Status.ERROR,
        State.KEPT,
        1,
        value=SECRET,
        text=SECRET,
        logs=Logs(SECRET, SECRET),
        error=ExecutionError(SECRET, SECRET, SECRET),
        files_reason=SECRET,
        tool_calls=(outcome,),
    )
    happenings = [ExecutionBegun.of(1, SECRET.encode(), 1.0), ToolEnded.of(1, outcome), ExecutionFinished.of(execution)]
    assert SECRET not in repr([happening.data() for happening in happenings])


@pytest.mark.parametrize(
    ("status", "dropped", "refused_by", "limits"),
    [
        (Status.OK, 0, "", ()),
        (Status.TIMEOUT, 0, "", ("time",)),
        (Status.OUT_OF_MEMORY, 0, "not_granted", ("memory",)),
        (Status.OUTPUT_LIMIT, 5, "", ("output",)),
        (Status.OK, 5, "max_calls", ("output", "max_calls")),
        (Status.ERROR, 0, "max_bytes", ("max_bytes",)),
    ],
)
def test_the_limits_that_were_met_are_named(
    status: Status, dropped: int, refused_by: str, limits: tuple[str, ...]
) -> None:
    call = ToolOutcome(1, "tool", "no", 0.0, Ending.REFUSED, refused_by)
    execution = Execution(
        status, State.KEPT, 1, logs=Logs(dropped_bytes=dropped), usage=Usage(), tool_calls=(call, call)
    )
    assert ExecutionFinished.of(execution).limits == limits


# --------------------------------------------------------------------------------------------------------- journal


def test_without_a_log_nothing_is_written_and_nobody_waits() -> None:
    coroutine = Journal.at("").record(SandboxEnded("closed"))
    with pytest.raises(StopIteration):  # it never suspends
        coroutine.send(None)


def test_a_journal_writes_under_the_name_of_its_sandbox(tmp_path: Path) -> None:
    path = tmp_path / "log"
    journal = Journal.at(str(path))

    async def main() -> None:
        await asyncio.gather(*(journal.named(f"s{i}").record(SandboxEnded("closed")) for i in range(20)))

    asyncio.run(main())
    assert {record.sandbox for record in records_of(path)} == {f"s{i}" for i in range(20)}
    assert verify(path).holds


def test_every_record_but_those_of_tool_calls_is_put_on_the_disk(tmp_path: Path) -> None:
    class Watched(AuditLog):
        synced = 0

        def sync(self) -> None:
            super().sync()
            self.synced += 1

    for kind in KINDS:
        log = Watched(tmp_path / "log")
        asyncio.run(Journal(log).record(worst(kind)))
        assert log.synced == (0 if kind in (ToolBegun, ToolEnded) else 1), kind


def test_a_record_that_cannot_be_written_is_an_error_to_who_wanted_it(tmp_path: Path) -> None:
    journal = Journal.at(str(tmp_path / "missing" / "log"))
    with pytest.raises(AuditError, match="nothing is done that would have to be recorded"):
        asyncio.run(journal.record(SandboxEnded("closed")))


def test_every_happening_says_what_its_fields_may_be() -> None:
    for kind in KINDS:
        assert {str(field.type) for field in dataclasses.fields(kind)} <= set(WORST), kind
        assert typing.get_type_hints(kind)


def test_what_is_being_written_when_its_writer_is_cancelled_comes_before_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit"
    journal, begun, go_on = Journal.at(str(path)), threading.Event(), threading.Event()
    append = AuditLog.append

    def slowly(log: AuditLog, kind: str, *rest: Any) -> None:
        if kind == "sandbox_refused":
            begun.set()
            assert go_on.wait(30)
        append(log, kind, *rest)

    monkeypatch.setattr(AuditLog, "append", slowly)

    async def case() -> None:
        first = asyncio.create_task(journal.record(SandboxRefused("first")))
        await asyncio.to_thread(begun.wait, 30)
        first.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await first
        await journal.record(SandboxEnded("second"))

    asyncio.run(case())
    assert [record.kind for record in records_of(path)] == ["sandbox_refused", "sandbox_ended"]


@apart
def test_where_no_thread_can_be_had_a_record_is_written_all_the_same_and_once() -> None:
    """The pool has queued it by then, and the next thread that it can start finds it there."""
    with ordinary_folder() as folder:
        journal = Journal.at(str(folder / "audit"))
        most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        resource.setrlimit(resource.RLIMIT_NPROC, (0, most))
        asyncio.run(journal.record(SandboxRefused("first")))
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        asyncio.run(journal.record(SandboxEnded("second")))
        assert [record.kind for record in records_of(folder / "audit")] == ["sandbox_refused", "sandbox_ended"]


def test_a_cut_is_noticed_by_whoever_writes_next_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    for _ in range(3):
        asyncio.run(Journal.at(str(path)).record(SandboxEnded("closed")))
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:2]))
    with pytest.raises(AuditError, match="has been cut"):
        asyncio.run(Journal.at(str(path)).record(SandboxEnded("closed")))
