"""kill -9 of the service: its sandboxes wait for the next one, for the time of a lease, with all that is in them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator import Client, Config, FinalAnswerStep, SandboxDied, ServiceError
from orchestrator.agents import ActionStep, Rebuilt
from orchestrator.client.connection import AGAIN_METADATA
from orchestrator.events import Output, RunState
from orchestrator.sandbox.engine import remove_container
from orchestrator.sandbox.leftovers import Listed, collect_garbage, list_containers
from tests.docker.service_process import SECONDS, SETTINGS, ServiceProcess, service_in
from tests.unit.chat_server import Answer, Request, completion
from tests.waiting import eventually

pytestmark = pytest.mark.docker
PATIENCE = 90.0  # seconds
AGAIN = ((AGAIN_METADATA, "1"),)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    patient = "grace = 10\n" + SETTINGS  # enough for what hears an interrupt to end by itself
    with service_in(tmp_path_factory.mktemp("killed"), settings=patient) as service:
        yield service
    assert not containers(service)


@pytest.fixture
def client(service: ServiceProcess) -> Iterator[Client]:
    with service.client(PATIENCE) as client:
        yield client


def settings_of(service: ServiceProcess) -> Config:
    """Of its sandboxes."""
    return replace(Config.load(), runtime_dir=str(service.folder / "run"))


def containers(service: ServiceProcess) -> list[Listed]:
    """Those of the service, whichever process of it has begun them."""
    known = list_containers(settings_of(service))
    return [found for found in known if (service.folder / "run" / found.session).exists()]


def restart(service: ServiceProcess, meanwhile: Callable[[], object] = lambda: None) -> None:
    """It is killed, and there again."""
    service.kill()
    eventually(lambda: service.pid is None, "it is dead")
    meanwhile()
    service.start()


def restarting(service: ServiceProcess, meanwhile: Callable[[], object] = lambda: None) -> threading.Thread:
    """The same, in a thread."""
    thread = threading.Thread(target=restart, args=(service, meanwhile))
    thread.start()
    return thread


# --------------------------------------------------------------------------------------------------- sandboxes of apps


def test_a_sandbox_of_an_app_is_there_again_with_all_that_it_had(service: ServiceProcess, client: Client) -> None:
    def double(n: int) -> int:
        """Twice.

        Args:
            n: of what.
        """
        return 2 * n

    with client.sandbox(tools=[double], env={"A": "b"}) as box:
        box.run_code("x = object(); told = id(x)\nopen('kept.txt', 'w').write('here')")
        box.checkpoint("before")
        box.run_code("y = 1")
        (container,) = containers(service)
        restart(service)
        (found,) = containers(service)
        assert found.id == container.id
        assert found.owner != container.owner
        assert found.owner_alive
        assert box.run_code("id(x) == told, y, open('kept.txt').read(), double(21)").value == (True, 1, "here", 42)
        assert [point.name for point in box.checkpoints if point.name] == ["before"]
        box.rollback("before")
        assert box.run_code("'y' in globals()").value is False
        assert box.isolation().level >= 1
        restart(service)
        assert box.run_code("id(x) == told").value is True
    assert not containers(service)


def test_the_execution_under_way_is_stopped_and_not_run_again(service: ServiceProcess, client: Client) -> None:
    with client.sandbox() as box:
        box.run_code("n = 0")
        restarted: list[threading.Thread] = []

        def look(text: str) -> None:
            if "under way" in text and not restarted:
                restarted.append(restarting(service))

        with pytest.raises((ServiceError, SandboxDied)):
            box.run_code("n += 1\nimport time\nprint('under way')\nwhile True: time.sleep(0.01)", on_stdout=look)
        restarted[0].join(SECONDS)
        assert box.run_code("n").value == 1


def test_what_may_have_arrived_is_not_done_again(service: ServiceProcess) -> None:
    """Its answer was lost with the service that had given it."""
    create = pb.CreateSandbox(key="create")
    with grpc.insecure_channel(service.address) as channel:
        made = rpc.SandboxesStub(channel).Create(create, timeout=SECONDS)
    restart(service)
    with grpc.insecure_channel(service.address) as channel:
        stub = rpc.SandboxesStub(channel)
        assert stub.Create(create, timeout=SECONDS, metadata=AGAIN).id == made.id
        code = pb.Execution(sandbox=made.id, key="run", code=b"1")
        for call in (
            lambda metadata: stub.Checkpoint(pb.MakeCheckpoint(sandbox=made.id, key="c"), metadata=metadata),
            lambda metadata: list(stub.Execute(code, metadata=metadata)),
        ):
            with pytest.raises(grpc.RpcError, match="whether it was done is not known"):
                call(AGAIN)
            call(())
        stub.Reset(pb.SandboxId(id=made.id), timeout=SECONDS, metadata=(("cellblock-key", "r"),))
        code.key = "run before the reset"
        with pytest.raises(grpc.RpcError, match="whether it was done is not known"):
            list(stub.Execute(code, metadata=AGAIN))
        stub.Close(pb.SandboxId(id=made.id), timeout=SECONDS)
    assert not containers(service)


def test_what_sweeps_meanwhile_leaves_it(service: ServiceProcess, client: Client) -> None:
    def sweeps() -> None:
        collect_garbage(settings_of(service))
        collect_garbage(replace(Config.load(), runtime_dir=str(service.folder / "elsewhere")))
        assert service.cellblock("gc").returncode == 0

    with client.sandbox() as box:
        box.run_code("x = 1")
        restart(service, sweeps)
        assert box.run_code("x").value == 1


def test_branches_end_and_their_parent_does_not(service: ServiceProcess, client: Client) -> None:
    with client.sandbox() as box:
        box.run_code("x = 1")
        branch = box.fork()
        branch.run_code("x = 2")
        restart(service)
        assert box.run_code("x").value == 1
        with pytest.raises(SandboxDied):
            branch.run_code("x")
        with box.fork() as another:
            assert another.run_code("x").value == 1


def test_after_the_lease_it_is_gone(tmp_path: Path) -> None:
    with service_in(tmp_path, settings="lease = 5\n" + SETTINGS) as service, service.client(PATIENCE) as client:
        box = client.sandbox()
        box.run_code("x = 1")
        restart(service, lambda: eventually(lambda: not containers(service), "its end", SECONDS))
        with pytest.raises(SandboxDied):
            box.run_code("x")
        box.reset()
        assert box.run_code("1").value == 1
        box.close()


# ---------------------------------------------------------------------------------------------------------------- runs

FIRST = "import random\nchance, n = random.SystemRandom().random(), 1\nopen('f', 'w').write('first')\nprint(chance)"
SECOND = "n += 1\nopen('f', 'a').write('second')\nprint('under way')"
ENDLESS = f"{SECOND}\nimport time\nwhile True: time.sleep(0.01)"
LAST = "final_answer([chance, n, open('f').read()])"


def killed_in_its_second_step(folder: Path, meanwhile: Callable[[ServiceProcess], object]) -> list[object]:
    """The events of a run whose second step does not end, until the service has been killed in it."""
    was_killed = threading.Event()
    restarts: list[threading.Thread] = []

    def script(request: Request) -> Answer:
        done = sum(message["role"] == "assistant" for message in request.body["messages"])
        code = (FIRST, SECOND if was_killed.is_set() else ENDLESS, LAST)[done]
        return completion(f"Thought: go on.\n<code>\n{code}\n</code>")

    with service_in(folder, script) as service, service.client(PATIENCE) as client:
        begun = client.runs.start("a task")
        events: list[object] = []
        for event in client.runs.follow(begun.id):
            events.append(event)
            if isinstance(event, Output) and "under way" in event.text and not was_killed.is_set():
                was_killed.set()
                restarts.append(restarting(service, lambda: meanwhile(service)))
        restarts[0].join(SECONDS)
        assert client.runs.get(begun.id).state is RunState.SUCCEEDED
        assert list(client.runs.follow(begun.id)) == events
        assert [event.step_number for event in events if isinstance(event, ActionStep)] == [1, 2, 3]
        eventually(lambda: not containers(service), "nothing is left")
    return events


def chances(events: list[object]) -> set[float]:
    """What the first step drew, each time that its code was run."""
    (printed,) = [event.text for event in events if isinstance(event, Output) and "0." in event.text]
    answer = events[-1]
    assert isinstance(answer, FinalAnswerStep)
    return {float(printed), answer.output[0]}


def test_a_run_goes_on_in_its_sandbox_from_its_last_finished_step(tmp_path: Path) -> None:
    events = killed_in_its_second_step(tmp_path, lambda _: None)
    assert len(chances(events)) == 1  # no code of before was run again
    assert events[-1].output[1:] == [2, "firstsecond"]  # and what the step under way had done was undone
    assert not [event for event in events if isinstance(event, Rebuilt)]


def test_a_run_whose_sandbox_is_gone_is_rebuilt(tmp_path: Path) -> None:
    def gone(service: ServiceProcess) -> None:
        (container,) = containers(service)
        remove_container(settings_of(service), container.id)

    events = killed_in_its_second_step(tmp_path, gone)
    assert len(chances(events)) == 2
    assert events[-1].output[1:] == [2, "firstsecond"]
    assert [event.actions for event in events if isinstance(event, Rebuilt)] == [1]
