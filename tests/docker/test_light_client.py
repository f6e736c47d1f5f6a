"""An app that embeds the client needs grpcio and protobuf alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from orchestrator import Config
from tests.serving import DEADLINE, Serving

pytestmark = pytest.mark.docker

# Whatever is neither Python's own nor of this list cannot be imported in the app. grpcio brings typing_extensions.
APP = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {allowed}:
            raise ImportError(f"{{top}} is not installed here")

sys.meta_path.insert(0, Blocked())
"""
ALLOWED = {"orchestrator", "orchestrator_api", "executor_api", "grpc", "google", "typing_extensions"}
USES = """
import asyncio
from orchestrator import AsyncClient, Client, ExecutionRequest, Table, ToolCallRequest

def add(a: int, b: int = 2) -> int:
    "Adds up."
    return a + b

def approve(request):
    return isinstance(request, ExecutionRequest | ToolCallRequest)

with Client(sys.argv[1]) as client:
    with client.sandbox(tools=[add], approve=approve, authorized_imports=["os"], final_answer=True) as one:
        print(one.run_code("print('hi'); add(1)", variables={"x": {1, 2}}).value)
        kept = one.checkpoint("kept")
        one.run_code("x = 0")
        one.rollback(kept)
        print(one.run_code("x").value)
        one.files.write("a", b"b")
        print([entry.path for entry in one.files.list()], one.isolation().level > 0)
        with one.fork() as branch:
            print(branch.run_code("final_answer(1/3)").final_answer.value)

async def main():
    async with AsyncClient(sys.argv[1]) as client, client.sandbox() as one:
        print([type(event).__name__ async for event in one.stream("print(1)")])

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def serving(config: Config) -> Iterator[Serving]:
    made = Serving(config)
    yield made
    made.close()


def test_an_app_runs_code_with_nothing_else_installed(serving: Serving) -> None:
    program = APP.format(allowed=ALLOWED) + USES
    command = [sys.executable, "-c", program, serving.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["3", "{1, 2}", "['a'] True", str(1 / 3), "['Output', 'Finished']"]
    assert done.stderr == ""
