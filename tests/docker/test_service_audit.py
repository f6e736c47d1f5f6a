"""The audit log of a real service: of runs, their teams and tools, of apps' sandboxes; and after kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.audit import Record, records_of, verify
from orchestrator.audit.chain import canonical, digest
from orchestrator.events import ApprovalAsked, Output
from tests.docker.service_process import ServiceProcess, service_in, steps
from tests.docker.test_service import ENDLESS
from tests.waiting import eventually

pytestmark = pytest.mark.docker


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with service_in(tmp_path) as running:
        yield running


def log(service: ServiceProcess) -> Path:
    return service.folder / "state" / "audit.jsonl"


def exported(service: ServiceProcess, run: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in service.cellblock("runs", "export", run).stdout.splitlines()]
    return [line["record"] for line in lines if line["kind"] == "audit_record"]


def test_all_of_a_run_is_exported_and_each_record_can_be_looked_at(service: ServiceProcess) -> None:
    def look_up(word: str) -> str:
        """Looks up a word.

        Args:
            word: which one
        """
        return word

    with service.client() as client:
        other = client.runs.start(steps("final_answer(0)"))
        list(client.runs.follow(other.id))
        begun = client.runs.start(steps("x = look_up('a')", "final_answer(x)"), "careful", tools=[look_up])
        for event in client.runs.follow(begun.id):
            if isinstance(event, ApprovalAsked):
                client.runs.decide(begun.id, event.question, True)
    found = exported(service, begun.id)
    assert [record["kind"] for record in found] == [
        "run_begun",
        "sandbox_started",
        "question_decided",
        "approval",
        "execution_begun",
        "approval",
        "tool_begun",
        "tool_ended",
        "execution_finished",
        "question_decided",
        "approval",
        "execution_begun",
        "execution_finished",
        "sandbox_ended",
        "run_ended",
    ]
    for record in found:
        own = record.pop("hash")
        assert own == digest(canonical(record))
    assert {(record["data"]["run"], record["data"]["owner"]) for record in found} == {(begun.id, "local")}


def test_a_sandbox_of_an_app_is_its_owners(service: ServiceProcess) -> None:
    with service.client() as client, client.sandbox() as one:
        one.run_code("1")
        one.checkpoint("good")
    found = [record for record in records_of(log(service)) if record.sandbox]
    assert [record.kind for record in found] == [
        "sandbox_started",
        "execution_begun",
        "execution_finished",
        "state_requested",
        "state_changed",
        "sandbox_ended",
    ]
    assert {(record.data["owner"], record.data.get("run")) for record in found} == {("local", None)}


def test_the_chain_holds_after_kill_9_also_in_the_midst_of_a_record(service: ServiceProcess) -> None:
    with service.client() as client:
        begun = client.runs.start(steps("print('begun')", ENDLESS))
        for event in client.runs.follow(begun.id):
            if isinstance(event, Output) and event.text.startswith("on"):
                break
    service.kill()
    eventually(lambda: service.pid is None, "it is dead")
    head = verify(log(service)).head
    with log(service).open("ab") as file:
        file.write(b'{"data":{"execu')  # what it would have left if it had been at a record
    done = service.cellblock("audit", "verify")
    assert (done.returncode, "its writer died while it wrote" in done.stderr) == (1, True)
    service.start()
    done = service.cellblock("audit", "verify", "--head", head)
    assert done.returncode == 0, done.stderr
    assert "cut short by a crash; the record after it accounts for it" in done.stdout
    eventually(lambda: _kinds(service, begun.id).count("run_begun") == 2, "it goes on")
    with service.client() as client:
        client.runs.interrupt(begun.id)
        list(_until_its_end(client, begun.id))
    kinds = _kinds(service, begun.id)
    assert kinds[:5] == ["service_started", "run_begun", "recovered", "service_started", "run_begun"]
    assert kinds[-2:] == ["run_interrupted", "run_ended"]
    assert verify(log(service), head).holds


def _kinds(service: ServiceProcess, run: str) -> list[str]:
    return [record.kind for record in records_of(log(service)) if _is_told(record, run)]


def _is_told(record: Record, run: str) -> bool:
    of_run = record.kind.startswith("run_") and record.data["run"] == run
    return of_run or record.kind in ("recovered", "service_started")


def _until_its_end(client: Any, run: str) -> Iterator[object]:
    try:
        yield from client.runs.follow(run)
    except Exception:  # noqa: BLE001 - that it was interrupted
        return
