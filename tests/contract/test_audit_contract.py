"""What every sandbox backend must do with an audit log: all of it is recorded, and what cannot be is not done."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from orchestrator import AsyncSandbox, Config, Limits, Sandbox, Status
from orchestrator.audit import Record, records_of, verify
from orchestrator.errors import AuditError, ImageMissing, OutcomeUnknown, SandboxDied
from orchestrator.sandbox.engine import remove_container
from tests.contract.conftest import DEADLINE, add
from tests.serving import behind

pytestmark = pytest.mark.docker

Make = Callable[..., Sandbox]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audited(config: Config, path: Path) -> Config:
    return replace(config, audit=str(path))


def recorded(path: Path) -> list[Record]:
    found = verify(path)
    assert found.holds, found
    return list(records_of(path))


def kinds(path: Path) -> list[str]:
    return [record.kind for record in recorded(path)]


def own(record: Record) -> dict[str, Any]:
    """Its data, without whose the sandbox is, which a service says besides."""
    return {name: value for name, value in record.data.items() if name != "owner"}


def hide(path: Path) -> Path:
    """The log is where nobody finds it, and a link is in its place: nothing can be recorded."""
    hidden = path.with_suffix(".hidden")
    path.rename(hidden)
    path.symlink_to(hidden)
    return hidden


def bring_back(path: Path) -> None:
    path.unlink()
    path.with_suffix(".hidden").rename(path)


# ------------------------------------------------------------------------------------------------- what is recorded


def test_a_session_is_recorded_from_start_to_end(make: Make, audited: Config, path: Path) -> None:
    with make(tools=[add], config=audited, limits=Limits(output="1k")) as one:
        one.run_code("add(1)")
        one.run_code("import socket")
        one.run_code("print('x' * 5000)")
        one.run_code("while True: pass", timeout=0.2)
    assert kinds(path) == [
        "sandbox_started",
        "execution_begun",
        "tool_begun",
        "tool_ended",
        "execution_finished",
        *["execution_begun", "execution_finished"] * 3,
        "sandbox_ended",
    ]
    started, begun, calling, called, finished = recorded(path)[:5]
    assert {record.sandbox for record in recorded(path)} == {started.sandbox}
    assert started.data["image"].startswith("sha256:")
    assert {"no network", "read-only root"} <= set(started.data["layers"])
    assert (begun.data["code_sha256"], begun.data["code_bytes"]) == (sha256(b"add(1)").hexdigest(), 6)
    assert calling.data["tool"] == called.data["tool"] == "add"
    assert calling.data["arguments_sha256"] == called.data["arguments_sha256"]
    assert (called.data["ending"], called.data["effect_unknown"]) == ("ok", False)
    assert (finished.data["status"], finished.data["state"], finished.data["tool_calls"]) == ("ok", "kept", 1)
    ends = [record.data for record in recorded(path) if record.kind == "execution_finished"]
    assert [(end["status"], end["limits"]) for end in ends] == [
        ("ok", []),
        ("import_denied", []),
        ("ok", ["output"]),
        ("timeout", ["time"]),
    ]
    assert own(recorded(path)[-1]) == {"reason": "closed"}


def test_neither_code_nor_arguments_nor_results_nor_output_are_in_it(make: Make, audited: Config, path: Path) -> None:
    def echo(value: str) -> str:
        raise ValueError(f"{value}-of-the-tool")

    with make(tools=[echo], config=audited) as one:
        one.run_code("print('canary')\ncanary = 'canary'\ntry: echo('canary')\nexcept ValueError: pass\ncanary")
        one.run_code("raise ValueError('canary')")
    assert b"canary" not in path.read_bytes()


def test_denials_and_approvals_are_recorded(make: Make, audited: Config, path: Path) -> None:
    def approve(request: Any) -> bool:
        return "danger" not in repr(request)

    with make(tools=[add], config=audited, approve=approve) as one:
        one.run_code("add(1)")
        one.run_code("danger = 1")
        one.run_code("add('dan' 'ger')")
    shown = [(record.kind, record.data.get("what"), record.data.get("allowed")) for record in recorded(path)]
    asked = [entry for entry in shown if entry[0] == "approval"]
    assert asked == [
        ("approval", "code", True),
        ("approval", "add", True),
        ("approval", "code", False),
        ("approval", "code", True),
        ("approval", "add", False),
    ]
    refused = [r.data["refused_by"] for r in recorded(path) if r.kind == "tool_ended" and r.data["ending"] == "refused"]
    assert refused == ["approver"]
    assert kinds(path).count("execution_begun") == 2, "what was refused has not begun"


def test_states_and_branches_are_recorded(make: Make, audited: Config, path: Path) -> None:
    with make(config=audited) as one:
        one.run_code("a = 1")
        one.checkpoint("clean")
        one.run_code("a = 2")
        one.rollback("clean")
        with one.fork() as branch:
            branch.run_code("a")
        one.drop("clean")
        one.undo()
    done = [(r.data["what"], r.data["execution"]) for r in recorded(path) if r.kind == "state_changed"]
    assert done == [
        ("checkpoint('clean')", 1),
        ("rollback('clean')", 1),
        ("fork()", 1),
        ("drop('clean')", 1),
        ("undo()", 0),
    ]
    asked = [r.data["what"] for r in recorded(path) if r.kind == "state_requested"]
    assert asked == [what for what, _ in done]
    started = [r for r in recorded(path) if r.kind == "sandbox_started"]
    ended = [r.sandbox for r in recorded(path) if r.kind == "sandbox_ended"]
    assert [r.data["parent"] for r in started] == ["", started[0].sandbox]
    assert {r.data["level"] for r in started} <= {1, 2, 3}
    assert started[1].sandbox.startswith(f"{started[0].sandbox}.")
    assert ended == [started[1].sandbox, started[0].sandbox]


def test_a_sandbox_that_dies_is_recorded_with_what_is_not_known(
    make: Make, audited: Config, path: Path, release: threading.Event
) -> None:
    def pull_the_plug() -> None:
        remove_container(audited, behind(one)._link.container.id)  # type: ignore[union-attr]
        release.wait(DEADLINE)  # the end of the container is told meanwhile

    with make(tools=[pull_the_plug], config=audited) as one:
        with pytest.raises(OutcomeUnknown):
            one.run_code("pull_the_plug()")
        one.reset()
        one.run_code("1")
    assert kinds(path) == [
        "sandbox_started",
        "execution_begun",
        "tool_begun",
        "tool_ended",
        "execution_unfinished",
        "sandbox_ended",
        "sandbox_started",
        "execution_begun",
        "execution_finished",
        "sandbox_ended",
    ]
    tool, unfinished, ended = recorded(path)[3:6]
    assert (tool.data["ending"], tool.data["effect_unknown"]) == ("cancelled", True)
    assert (unfinished.data["reason"], ended.data["reason"]) == ("SandboxDied", "lost")
    assert len({record.sandbox for record in recorded(path)}) == 2


def test_an_execution_that_nobody_waits_for_any_more_is_recorded(make: Make, audited: Config, path: Path) -> None:
    async def main() -> None:
        async with AsyncSandbox(config=audited) as one:
            running = asyncio.create_task(one.run_code("print('on')\nwhile True: pass", on_stdout=lambda _: on.set()))
            on = asyncio.Event()
            await on.wait()
            running.cancel()
            await asyncio.wait({running})
            assert (await one.run_code("1")).value == 1

    asyncio.run(asyncio.wait_for(main(), DEADLINE))
    assert kinds(path)[1:5] == ["execution_begun", "execution_unfinished", "execution_begun", "execution_finished"]
    assert recorded(path)[2].data == {"execution": 1, "reason": "abandoned"}


def test_a_start_that_fails_is_recorded(make: Make, audited: Config, path: Path) -> None:
    with pytest.raises(ImageMissing):
        make(config=replace(audited, image="cellblock-of-no-such-name")).start()
    (record,) = recorded(path)
    assert (record.kind, own(record)) == ("sandbox_refused", {"error": "ImageMissing"})


def test_an_interrupt_that_comes_while_the_beginning_is_recorded_is_not_lost(
    make: Make, audited: Config, path: Path
) -> None:
    async def main() -> list[Status]:
        seen = []
        async with AsyncSandbox(config=replace(audited, grace=5.0)) as one:
            for _ in range(10):
                running = asyncio.create_task(one.run_code("while True: pass"))
                while not one._conversation:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0)
                await one.interrupt()
                seen.append((await running).status)
        return seen

    assert asyncio.run(asyncio.wait_for(main(), 2 * DEADLINE)) == [Status.INTERRUPTED] * 10


def test_sandboxes_of_one_process_and_of_others_write_one_log(make: Make, audited: Config, path: Path) -> None:
    program = (
        "import sys\nfrom dataclasses import replace\nfrom orchestrator import Config, Sandbox\n"
        f"with Sandbox(config=replace(Config.load(), audit={str(path)!r})) as one:\n"
        "    for _ in range(5): one.run_code('1')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    with make(config=audited) as one, make(config=audited) as two:
        threads = [threading.Thread(target=lambda s=s: [s.run_code("1") for _ in range(5)]) for s in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    assert process.wait(DEADLINE) == 0
    by_sandbox: dict[str, list[str]] = {}
    for record in recorded(path):
        by_sandbox.setdefault(record.sandbox, []).append(record.kind)
    expected = ["sandbox_started", *["execution_begun", "execution_finished"] * 5, "sandbox_ended"]
    assert list(by_sandbox.values()) == [expected] * 3


# ------------------------------------------------------------------------------------------- what cannot be recorded


def test_a_sandbox_whose_start_cannot_be_recorded_does_not_start(make: Make, config: Config, tmp_path: Path) -> None:
    one = make(config=replace(config, audit=str(tmp_path / "missing" / "audit.jsonl")))
    with pytest.raises(AuditError, match="No such file or directory"):
        one.start()
    assert not one.is_running
    one.close()


def test_code_whose_beginning_cannot_be_recorded_is_not_run(make: Make, audited: Config, path: Path) -> None:
    with make(config=audited) as one:
        one.run_code("ran = []")
        hide(path)
        with pytest.raises(AuditError, match="symbolic link"):
            one.run_code("ran.append(1)")
        bring_back(path)
        assert one.run_code("ran").value == []
    assert kinds(path).count("execution_begun") == 2


def test_a_tool_whose_call_cannot_be_recorded_is_not_called_and_the_code_is_stopped(
    make: Make, audited: Config, path: Path
) -> None:
    calls: list[int] = []

    def spy() -> None:
        calls.append(1)

    def break_log() -> None:
        hide(path)

    with make(tools=[spy, break_log], config=audited) as one:
        with pytest.raises(AuditError):
            one.run_code("spy()\nx = 5\nbreak_log()\nspy()\nx = 6")
        bring_back(path)
        assert one.run_code("x").value == 5
    assert calls == [1]


def test_tools_that_run_when_nothing_can_be_recorded_any_more_are_given_up(
    make: Make, audited: Config, path: Path
) -> None:
    running, given_up = threading.Event(), threading.Event()

    async def waits() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    def break_log() -> None:
        running.wait(DEADLINE)
        hide(path)

    with make(tools=[waits, break_log], config=audited, authorized_imports=["threading"]) as one:
        with pytest.raises(AuditError):
            one.run_code("import threading\nthreading.Thread(target=waits).start()\nbreak_log()")
        assert given_up.wait(DEADLINE)
        bring_back(path)
        assert one.run_code("1").value == 1


def test_a_state_that_cannot_be_recorded_is_not_changed(make: Make, audited: Config, path: Path) -> None:
    with make(config=audited) as one:
        one.run_code("a = 1")
        one.run_code("a = 2")
        hide(path)
        for change in (one.undo, one.fork, lambda: one.checkpoint("no"), lambda: one.rollback(1)):
            with pytest.raises(AuditError):
                change()
        bring_back(path)
        assert one.run_code("a").value == 2
        assert [checkpoint.name for checkpoint in one.checkpoints if checkpoint.name] == []
        assert one.branches == ()


def test_a_sandbox_is_removed_though_its_end_cannot_be_recorded(make: Make, audited: Config, path: Path) -> None:
    one = make(config=audited)
    one.start()
    branch = one.fork()
    hide(path)
    with pytest.raises(AuditError):
        one.close()
    assert not one.is_running
    assert not branch.is_running
    one.close()


def test_a_sandbox_that_dies_while_nothing_can_be_recorded_is_gone_all_the_same(
    make: Make, audited: Config, path: Path
) -> None:
    with make(config=audited) as one:
        one.run_code("1")
        remove_container(audited, behind(one)._link.container.id)  # type: ignore[union-attr]
        with pytest.raises(SandboxDied):
            one.run_code("1")
        one.reset()
        remove_container(audited, behind(one)._link.container.id)  # type: ignore[union-attr]
        hide(path)
        with pytest.raises(AuditError):
            one.run_code("1")
        bring_back(path)
        one.reset()
        assert one.run_code("1").value == 1
