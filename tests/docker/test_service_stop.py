"""A service that is told to end: what is under way may end, nothing new begins, runs keep their memory."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator import Config, FinalAnswerStep, ServiceUnavailable
from orchestrator.agents import ActionStep
from orchestrator.events import Output, RunState
from tests.docker.service_process import SECONDS, SETTINGS, ServiceProcess, service_in, steps
from tests.waiting import eventually

pytestmark = pytest.mark.docker
DRAIN = 600  # seconds: no test waits so long, so what ends has ended for another reason
WAITS = "print('on')\nimport time\nwhile not may_end(): time.sleep(0.05)\nfinal_answer(n + 1)"


@pytest.fixture
def service(config: Config, tmp_path: Path) -> Iterator[ServiceProcess]:
    with service_in(tmp_path, settings=SETTINGS.replace("max_runs = 2", f"max_runs = 2\ndrain = {DRAIN}")) as running:
        yield running


def tell_to_end(service: ServiceProcess) -> int:
    """As systemd does; it has heard it after this."""
    pid = service.pid
    assert pid
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not service.is_serving(), "it has not heard", SECONDS)
    return pid


def test_what_is_under_way_ends_and_a_run_is_gone_on_with_after_the_next_start(
    service: ServiceProcess, release: threading.Event
) -> None:
    begun, may = threading.Event(), threading.Event()

    def wait() -> int:
        """Waits."""
        begun.set()
        assert release.wait(DRAIN)
        return 41

    def may_end() -> bool:
        """Whether the run may."""
        return may.is_set()

    with ExitStack() as stack:
        client, pool = stack.enter_context(service.client()), stack.enter_context(ThreadPoolExecutor())
        stack.callback(release.set)  # before the pool waits for what waits for it
        busy, idle = client.sandbox(tools=[wait], timeout=DRAIN), client.sandbox()
        idle.start()
        executing = pool.submit(busy.run_code, "wait() + 1")
        assert begun.wait(SECONDS)
        run = client.runs.start(steps("n = 1\nprint('made')", WAITS), tools=[may_end])
        events = client.runs.follow(run.id)
        while not (isinstance(event := next(events), Output) and event.text.startswith("on")):
            pass
        pid = tell_to_end(service)
        assert list(events)[-1] != FinalAnswerStep(2)
        ended = client.runs.get(run.id)
        assert (ended.state, ended.error) == (RunState.INTERRUPTED, "interrupted by the service, which was stopped")
        for refused in (
            lambda: client.sandbox().start(),
            lambda: idle.run_code("1"),
            idle.fork,
            idle.reset,
            lambda: client.runs.start("task"),
            lambda: client.runs.resume(run.id, tools=[may_end]),
        ):
            with pytest.raises(ServiceUnavailable, match="stopping"):
                refused()
        assert service.pid == pid  # it waits for the execution
        assert not executing.done()
        release.set()
        assert executing.result(SECONDS).value == 42  # nothing of the answer is lost
        eventually(lambda: service.pid is None, "it does not end", SECONDS)

    service.start()
    may.set()
    with service.client() as client:
        stopped = client.runs.get(run.id)
        assert (stopped.state, stopped.can_resume) == (RunState.INTERRUPTED, True)
        client.runs.resume(run.id, tools=[may_end])
        told = list(client.runs.follow(run.id))
        assert told[-1] == FinalAnswerStep(2)
        numbers = [event.step_number for event in told if isinstance(event, ActionStep)]
        assert numbers == list(range(1, len(numbers) + 1))  # none is lost, and none told twice


def test_told_a_second_time_it_ends_at_once_and_leaves_nothing(service: ServiceProcess) -> None:
    with service.client(patience=0) as client, ThreadPoolExecutor() as pool:
        heard = threading.Event()
        sandbox = client.sandbox(timeout=DRAIN)
        sandbox.start()
        executing = pool.submit(
            sandbox.run_code, "print('on', flush=True)\nwhile True: pass", on_stdout=lambda text: heard.set()
        )
        assert heard.wait(SECONDS)
        pid = tell_to_end(service)
        assert service.pid == pid
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: service.pid is None, "it does not end", SECONDS)
        assert executing.exception(SECONDS)
    assert not (service.folder / "run" / "service.sock").exists()
