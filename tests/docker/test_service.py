"""The service as a process: runs and sandboxes for apps, through crashes; its commands; what it leaves behind."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import AgentError, AgentInterrupted, Config, FinalAnswerStep, NotFound
from orchestrator.agents import ActionStep, StepStarted, TaskStep
from orchestrator.events import ApprovalAsked, ApprovalDecided, Output, RunState, ToolCall
from tests.docker.service_process import SECONDS, SETTINGS, ServiceProcess, service_in, steps
from tests.waiting import eventually

pytestmark = pytest.mark.docker
ENDLESS = "print('on')\nwhile True: pass"
# A tool of the operator's. Its first call waits for the end of its process, so that this comes while a step is at work.
HOLDS = '''
import threading
from pathlib import Path


def hold() -> int:
    """Waits, the first time."""
    called = Path(__file__).with_name("called")
    if not called.exists():
        called.touch()
        threading.Event().wait()
    return 7
'''


@pytest.fixture(scope="module")
def started(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with service_in(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def service(started: ServiceProcess) -> Iterator[ServiceProcess]:
    """Whatever becomes of a test, no run of it is at work after it: an endless one would have the place of another."""
    yield started
    with started.client() as client:
        for run in client.runs.list():
            if not run.state.has_ended:
                client.runs.interrupt(run.id)
        eventually(lambda: all(run.state.has_ended for run in client.runs.list()), "a run goes on", SECONDS)


def kinds(events: list[object]) -> list[str]:
    return [type(event).__name__ for event in events]


# ----------------------------------------------------------------------------------------------------------------- runs


def test_a_run_gives_the_events_of_an_agents_and_is_in_the_store(service: ServiceProcess) -> None:
    with service.client() as client:
        events = list(client.run(steps("x = 41\nprint('one')", "final_answer({'x': x + 1, 'raw': b'\\x00'})")))
        assert isinstance(events[0], TaskStep)
        assert [event.text for event in events if isinstance(event, Output)] == ["one\n"]
        assert [event.step_number for event in events if isinstance(event, StepStarted)] == [1, 2]
        assert events[-1] == FinalAnswerStep({"x": 42, "raw": b"\x00"})
        run = client.runs.list(1)[0]
        assert (run.state, run.agent, run.owner, run.steps) == (RunState.SUCCEEDED, "default", "local", 2)
        assert (run.input_tokens, run.output_tokens) == (14, 6)
        assert (run.answer, run.error, run.can_resume) == ({"x": 42, "raw": b"\x00"}, "", False)
        assert run.events == len(events)
        assert list(client.runs.follow(run.id)) == events
        assert list(client.runs.follow(run.id, after=3)) == events[3:]


def test_functions_of_the_app_are_called_in_the_app(service: ServiceProcess) -> None:
    called: list[tuple[str, int]] = []

    def look_up(word: str, times: int = 2) -> str:
        """Looks up a word.

        Args:
            word: which one
            times: how often
        """
        called.append((word, times))
        return f"{word}!" * times

    with service.client() as client:
        code = "final_answer(look_up('a') + look_up(word='b', times=1))"
        events = list(client.run(steps(code), tools=[look_up]))
    assert events[-1] == FinalAnswerStep("a!a!b!")
    assert called == [("a", 2), ("b", 1)]


def test_a_key_begins_one_run(service: ServiceProcess) -> None:
    with service.client() as client:
        first = client.runs.start(steps("final_answer(1)"), key="once")
        second = client.runs.start("something else", key="once")
        assert first.id == second.id
        assert first.task == second.task
        assert list(client.runs.follow(first.id))[-1] == FinalAnswerStep(1)


def test_a_run_goes_on_where_an_earlier_one_ended(service: ServiceProcess) -> None:
    with service.client() as client:
        first = client.runs.start(steps("x = 20", "final_answer(x)"))
        list(client.runs.follow(first.id))
        events = list(client.run(steps("final_answer(x + 1)"), continues=first.id))
        assert events[-1] == FinalAnswerStep(21)
        with pytest.raises(NotFound):
            client.runs.start("task", continues="0123")


def test_values_are_given_to_the_code(service: ServiceProcess) -> None:
    with service.client() as client:
        events = list(client.run(steps("final_answer(rows[1] + b)"), additional_args={"rows": [1, 2], "b": 40}))
        assert events[-1] == FinalAnswerStep(42)


def test_an_interrupted_run_is_gone_on_with(service: ServiceProcess) -> None:
    with service.client() as client:
        begun = client.runs.start(steps("x = 1\nprint('made')", ENDLESS))
        for event in client.runs.follow(begun.id):
            if isinstance(event, Output) and event.text.startswith("on"):
                client.runs.interrupt(begun.id)
        run = client.runs.get(begun.id)
        assert (run.state, run.error, run.can_resume) == (RunState.INTERRUPTED, "interrupted by local", True)
        again = client.runs.resume(begun.id)
        assert again.state in (RunState.QUEUED, RunState.RUNNING)
        client.runs.interrupt(begun.id)
        eventually(lambda: client.runs.get(begun.id).state is RunState.INTERRUPTED, "it goes on")


def test_a_stream_of_an_interrupted_or_failed_run_says_so(service: ServiceProcess) -> None:
    with service.client() as client:

        def watch() -> None:
            for event in client.run(steps(ENDLESS)):
                if isinstance(event, Output):
                    client.runs.interrupt(client.runs.list(1)[0].id)

        with pytest.raises(AgentInterrupted, match="interrupted by local"):
            watch()
        with pytest.raises(NotFound, match="no agent 'nobody'"):
            list(client.run("task", "nobody"))


def test_what_does_not_fit_waits(service: ServiceProcess) -> None:
    with service.client() as client:
        begun = [client.runs.start(steps(ENDLESS)) for _ in range(3)]
        eventually(lambda: client.runs.get(begun[1].id).state is RunState.RUNNING, "it does not begin")
        assert client.runs.get(begun[2].id).state is RunState.QUEUED
        client.runs.interrupt(begun[2].id)  # in the queue
        eventually(lambda: client.runs.get(begun[2].id).state is RunState.INTERRUPTED, "it waits on")
        for run in begun:
            client.runs.interrupt(run.id)
        eventually(lambda: client.runs.get(begun[0].id).state is RunState.INTERRUPTED, "it goes on")
        eventually(lambda: client.runs.get(begun[1].id).state is RunState.INTERRUPTED, "it goes on")


def test_a_run_with_functions_of_an_app_is_resumed_by_the_app(service: ServiceProcess) -> None:
    called: list[int] = []

    def count(number: int) -> int:
        """Counts.

        Args:
            number: from where
        """
        called.append(number)
        return number + 1

    with service.client() as client:
        begun = client.runs.start(steps("n = count(1)\nprint('counted')", ENDLESS, "never"), tools=[count])
        for event in client.runs.follow(begun.id):
            if isinstance(event, Output) and event.text.startswith("on"):
                client.runs.interrupt(begun.id)
        with pytest.raises(AgentError, match="give count as tools"):
            client.runs.resume(begun.id)
        client.runs.resume(begun.id, tools=[count])
        eventually(lambda: client.runs.get(begun.id).state is RunState.RUNNING, "it does not go on")
        client.runs.interrupt(begun.id)
        eventually(lambda: client.runs.get(begun.id).state is RunState.INTERRUPTED, "it goes on")
        assert called == [1]  # its recorded result was given again


# ------------------------------------------------------------------------------------------------------------ approvals


def test_questions_are_asked_answered_and_recorded(service: ServiceProcess) -> None:
    with service.client() as client:
        begun = client.runs.start(steps("print('dangerous')", "final_answer('done')"), "careful")
        events = []
        for event in client.runs.follow(begun.id):
            events.append(event)
            if isinstance(event, ApprovalAsked):
                run = client.runs.get(begun.id)
                assert run.state is RunState.WAITING
                assert [question.id for question in run.questions] == [event.question]
                assert (event.agent, event.reason) == ("careful", "look at it first")
                is_dangerous = "dangerous" in event.code
                client.runs.decide(begun.id, event.question, not is_dangerous, "not today" if is_dangerous else "")
        decided = [event for event in events if isinstance(event, ApprovalDecided)]
        assert [(one.approved, one.by) for one in decided] == [(False, "local"), (True, "local")]
        assert not any(isinstance(event, Output) for event in events)
        refused = next(event for event in events if isinstance(event, ActionStep))
        assert "not today" in str(refused.error)
        assert events[-1] == FinalAnswerStep("done")
        with pytest.raises(NotFound):
            client.runs.decide(begun.id, decided[0].question, True)


# ------------------------------------------------------------------------------------------------------------- crashes


def test_after_kill_9_a_run_goes_on_and_its_stream_loses_and_repeats_nothing(config: Config, tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(HOLDS)
    settings = SETTINGS.replace("[agents.default]", '[agents.default]\ntools = ["held:hold"]')
    with service_in(tmp_path, settings=settings) as service, service.client() as client:
        code = "first = 'n' in globals()\nn = 40\nprint('step one')"
        begun = client.runs.start(steps(code, "print(hold())\nn += 1", "final_answer((first, n + 1))"))
        events, again = [], threading.Thread(target=service.start)
        try:
            for event in client.runs.follow(begun.id):
                events.append(event)
                if isinstance(event, ToolCall) and again.ident is None:
                    eventually((tmp_path / "called").exists, "it is not called", SECONDS)
                    service.kill()
                    eventually(lambda: service.pid is None, "it is not dead", SECONDS)
                    again.start()
        finally:
            if again.ident:
                again.join(SECONDS)
        assert events[-1] == FinalAnswerStep((False, 42))
        run = client.runs.get(begun.id)
        assert run.state is RunState.SUCCEEDED
        assert list(client.runs.follow(begun.id)) == events
        assert [event.step_number for event in events if isinstance(event, ActionStep)] == [1, 2, 3]


# -------------------------------------------------------------------------------------------------------- command line


def test_a_second_start_finds_it_and_the_commands_speak_to_it(service: ServiceProcess) -> None:
    again = service.cellblock("serve", "--background")
    assert (again.returncode, again.stdout) == (0, f"service: process {service.pid} runs already\n")
    second = service.cellblock("serve")
    assert (second.returncode, "runs already" in second.stderr) == (3, True)
    shown = service.cellblock("status")
    assert "agents: careful, default" in shown.stdout, shown.stderr


def test_the_console_lets_its_user_in_once(service: ServiceProcess) -> None:
    link = service.cellblock("console").stdout.strip()
    address, _, code = link.partition("/login#")
    assert address.startswith("http://127.0.0.1:")
    assert code
    assert f"console: {address}" in service.cellblock("status").stdout
    host = address.removeprefix("http://")
    statuses = []
    for _ in range(2):
        connection = http.client.HTTPConnection(host, timeout=SECONDS)
        headers = {"Origin": address, "Content-Type": "application/json"}
        connection.request("POST", "/login", json.dumps({"code": code}), headers)
        statuses.append(connection.getresponse().status)
        connection.close()
    assert statuses == [200, 401]


def test_runs_on_the_command_line(service: ServiceProcess) -> None:
    with service.client() as client:
        begun = client.runs.start(steps("print('\\x1b[31mred')", "final_answer('listed')"))
        list(client.runs.follow(begun.id))
    listed = service.cellblock("runs", "list", "--search", "listed")
    assert begun.id in listed.stdout
    shown = service.cellblock("runs", "show", begun.id)
    assert "Final answer" in shown.stdout
    assert "\x1b[31mred" not in shown.stdout
    exported = [json.loads(line) for line in service.cellblock("runs", "export", begun.id).stdout.splitlines()]
    events = [line for line in exported if line["kind"] != "audit_record"]
    assert exported[: len(events)] == events
    assert events[0]["kind"] == "task_step"
    assert events[-1] == {"kind": "final_answer_step", "output": "listed", "state": "success"}
    records = [line["record"] for line in exported[len(events) :]]
    assert {record["data"]["run"] for record in records} == {begun.id}
    assert [record["kind"] for record in records] == [
        "run_begun",
        "sandbox_started",
        *["execution_begun", "execution_finished"] * 2,
        "sandbox_ended",
        "run_ended",
    ]
    none = service.cellblock("runs", "show", "0123")
    assert (none.returncode, "there is no run" in none.stderr) == (3, True)


def test_without_a_service_the_commands_say_so(tmp_path: Path) -> None:
    (tmp_path / "cellblock.toml").write_text(f'runtime_dir = "{tmp_path}/run"\n')
    alone = ServiceProcess(tmp_path, "")
    for command in (("status",), ("runs", "list"), ("token", "list")):
        done = alone.cellblock(*command)
        assert (done.returncode, "no service" in done.stderr) == (3, True), done.stderr
    assert alone.cellblock("stop").stdout == "service: none runs\n"
