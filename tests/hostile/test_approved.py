"""Where code is to run is known before anybody is asked about it, and what is asked is recorded under that name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.audit import records_of
from orchestrator.errors import SandboxClosed, SandboxDied
from orchestrator.policy import ExecutionRequest
from tests.hostile.oracle import in_stage
from tests.hostile.peer import Peer, finished, honest
from tests.hostile.stage import Stage


class Asked(list[str]):
    """An approver that says yes and keeps what it was asked."""

    def __call__(self, request: Any) -> bool:
        assert isinstance(request, ExecutionRequest)
        self.append(request.code)
        return True


async def spent(peer: Peer) -> None:
    """Executes once, and can do no more."""
    await peer.say(finished(await peer.executing(), status=7, state=3, spent=True))
    await peer.stall()


async def dies(peer: Peer) -> None:
    """Goes away when it is given code."""
    await peer.executing()


def test_every_approval_is_recorded_under_the_name_of_the_sandbox_that_the_code_is_for(tmp_path: Path) -> None:
    path = tmp_path / "audit"

    async def play(scene: Stage) -> None:
        sandbox = scene.sandbox(spent, honest, approve=Asked())
        await sandbox.run_code("1")  # which starts the first container
        await sandbox.run_code("2")  # and this the second
        await sandbox.close()

    in_stage(play, audit=str(path))
    kinds = ["sandbox_started", "approval", "execution_begun", "execution_finished", "sandbox_ended"]
    found = [(record.sandbox, record.kind) for record in records_of(path)]
    assert sorted(found) == sorted((name, kind) for name in ("s0", "s1") for kind in kinds)
    assert [name for name, kind in found if kind == "approval"] == ["s0", "s1"]


def test_nobody_is_asked_about_code_for_a_sandbox_that_is_closed_or_lost() -> None:
    async def play(scene: Stage) -> Asked:
        asked = Asked()
        sandbox = scene.sandbox(dies, honest, approve=asked)
        with pytest.raises(SandboxDied):
            await sandbox.run_code("the end")
        with pytest.raises(SandboxDied, match="reset"):
            await sandbox.run_code("too late")
        await sandbox.reset()
        await sandbox.run_code("again")
        await sandbox.close()
        with pytest.raises(SandboxClosed):
            await sandbox.run_code("closed")
        return asked

    assert in_stage(play) == ["the end", "again"]
