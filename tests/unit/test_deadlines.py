"""Who waits for somebody waits longer than that may take: else a sandbox is lost that is about to be well."""

from __future__ import annotations

from executor_image.launcher import warden as sweeping
from executor_image.supervisor import session, states
from executor_image.supervisor import warden as asking
from orchestrator import portal
from orchestrator.config import Config
from orchestrator.sandbox import engine, files, life, sandbox, state

# A kill takes so long at the most, and then the way back: what was asked for is answered after it.
KILLED = session.KILL_DEADLINE + session.LAST_RESORT


def test_the_supervisor_waits_for_the_warden() -> None:
    assert 2 * sweeping._GONE_SECONDS + sweeping._LOOK_AGAIN_AT_LAST < asking.ANSWER_DEADLINE


def test_going_back_waits_for_a_sweep_and_the_last_resort_for_going_back() -> None:
    assert asking.ANSWER_DEADLINE < session.KILL_DEADLINE < session.LAST_RESORT


def test_the_host_waits_for_a_kill() -> None:
    assert KILLED < life.ABANDON_DEADLINE < sandbox.HOST_MARGIN
    assert session.FILE_DEADLINE + KILLED < files.REQUEST_DEADLINE < files.FILE_DEADLINE


def test_the_host_waits_for_a_state() -> None:
    assert states.BIRTH_DEADLINE < states.STATE_DEADLINE < state.STATE_DEADLINE
    assert states.STATE_DEADLINE < life.ABANDON_DEADLINE


def test_who_pressed_ctrl_c_waits_until_the_execution_is_stopped_and_its_container_removed() -> None:
    assert life.ABANDON_DEADLINE + Config().grace + engine._PATIENCE < portal.CANCEL_DEADLINE
