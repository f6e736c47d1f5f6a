"""A service as `make up` starts one: a process of its own, with a folder of its own and a scripted model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from orchestrator import Client, Config
from orchestrator.sandbox.leftovers import list_containers
from orchestrator.service import process
from tests.unit.chat_server import Answer, Request, completion, serving
from tests.waiting import eventually

SECONDS = 90  # for anything that is waited for: the machine may have all other tests to do
ENGINE = ("CELLBLOCK_DOCKER_HOST", "CELLBLOCK_IMAGE")  # settings of the environment that say where the tests are run
SETTINGS = """
runtime_dir = "{folder}/run"
approval_timeout = 30

[service]
store = "{folder}/state/store.db"
console = "127.0.0.1:0"
max_runs = 2

[models.scripted]
model = "openai:scripted"
api_base = "{url}"
api_key_env = "SCRIPTED_KEY"

[agents.default]
model = "scripted"
max_steps = 6

[agents.careful]
model = "scripted"
max_steps = 6

[[policy]]
agent = "careful"
execution = true
action = "ask"
reason = "look at it first"
"""


def steps(*codes: str) -> str:
    """A task: its first step is the first code, and so on."""
    return json.dumps(codes)


def as_the_task_says(request: Request) -> Answer:
    """The model's reply: the code of the step that the conversation has come to."""
    messages = request.body["messages"]
    task = next(part for part in reversed(list(_tasks(messages))))
    done = sum(message["role"] == "assistant" for message in messages[messages.index(task[0]) :])
    return completion(f"Thought: go on.\n<code>\n{task[1][min(done, len(task[1]) - 1)]}\n</code>")


def _tasks(messages: Sequence[Any]) -> Iterator[tuple[Any, list[str]]]:
    for message in messages:
        text = message["content"] if isinstance(message["content"], str) else message["content"][0]["text"]
        start, end = text.find('["'), text.rfind('"]')
        if message["role"] == "user" and "New task" in text and 0 <= start < end:
            yield message, json.loads(text[start : end + 2])


def is_kept(variable: str) -> bool:
    """Whether a variable of the environment is for a service of the tests, too."""
    return variable in ENGINE or not variable.startswith("CELLBLOCK_")


@dataclass
class ServiceProcess:
    """It, from ``start()`` to ``stop()`` or ``kill()``, which may be done again."""

    folder: Path
    url: str
    pids: set[int] = field(default_factory=set)  # that it has had

    @property
    def address(self) -> str:
        return f"unix:{self.folder}/run/service.sock"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if is_kept(name)}
        return {**kept, "SCRIPTED_KEY": "sk-test", "CELLBLOCK_CONFIG": str(self.folder / "cellblock.toml")}

    def cellblock(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line, with this service's settings."""
        return subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env=self.environment,
            cwd=self.folder,
        )

    def start(self) -> None:
        done = self.cellblock("serve", "--background")
        assert done.returncode == 0, done.stderr
        if pid := self.pid:
            self.pids.add(pid)

    @property
    def pid(self) -> int | None:
        return process.running(self.folder / "run" / "orchestrator.lock")

    def kill(self) -> None:
        """As the kernel does when memory runs out: nothing is put in order."""
        pid = self.pid
        assert pid
        os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        done = self.cellblock("stop")
        assert done.returncode == 0, done.stderr

    def end(self) -> None:
        """In good order, or in another one."""
        try:
            self.stop()
        finally:
            if pid := self.pid:
                os.kill(pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """The containers of every process that it was."""
        containers = list_containers(Config.load())
        return [found.session for found in containers if int(found.owner.partition(":")[0]) in self.pids]

    def is_serving(self) -> bool:
        """What it says of its health."""
        with grpc.insecure_channel(self.address) as channel:
            asked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        return bool(asked.status == health_pb2.HealthCheckResponse.SERVING)

    def client(self, patience: float = SECONDS) -> Client:
        return Client(self.address, patience=patience)


@contextmanager
def service_in(
    folder: Path, script: Callable[[Request], Answer] = as_the_task_says, settings: str = SETTINGS
) -> Iterator[ServiceProcess]:
    """One that runs until the end of the block, and leaves nothing behind."""
    with serving(script) as server:
        (folder / "cellblock.toml").write_text(settings.format(folder=folder, url=server.url))
        service = ServiceProcess(folder, server.url)
        try:
            service.start()
            yield service
        finally:
            service.end()
    assert service.pids
    assert not service.pid
    assert not (folder / "run" / "service.sock").exists()
    eventually(lambda: not service.left(), lambda: f"left behind: {service.left()}")
