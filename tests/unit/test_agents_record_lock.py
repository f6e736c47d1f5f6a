"""Two programs do not go on with one record: each would make the other's calls again."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.agents.record_lock import hold
from orchestrator.errors import AgentError
from tests.unit.recorded_agents import Counter, agent, crashed
from tests.waiting import eventually

WAIT = 30.0  # seconds for the other program
HOLDING = """
import sys
from pathlib import Path
from orchestrator.agents.record_lock import hold
class Owner: pass
owner = Owner()
hold(Path(sys.argv[1]), owner)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_program(path: Path) -> Iterator[subprocess.Popen[str]]:
    """That has the record, or says why it cannot have it."""
    command = [sys.executable, "-c", HOLDING, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as other:
        try:
            yield other
        finally:
            other.kill()
            other.wait(WAIT)


def said(other: subprocess.Popen[str]) -> str:
    """The last line of what it wrote before it ended."""
    out, errors = other.communicate("", WAIT)
    return (errors or out).splitlines()[-1]


def is_free(path: Path) -> bool:
    gc.collect()
    with another_program(path) as other:
        return said(other) == "held"


def test_what_another_program_goes_on_with_is_left_alone(tmp_path: Path) -> None:
    path, counter = tmp_path / "run.jsonl", Counter()
    crashed(tmp_path / "first.jsonl", ["x = add(1)"], counter)
    shutil.copy(tmp_path / "first.jsonl", path)  # which nobody has
    before = path.read_bytes()
    with another_program(path) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        for work in (lambda made: made.resume(), lambda made: made.resume(path), lambda made: made.run("Task.")):
            with pytest.raises(AgentError, match="another program goes on with the record"):
                work(agent(path, ["final_answer(1)"], counter))
        assert path.read_bytes() == before
    assert counter.calls == [1]
    assert agent(path, ["final_answer(x)"], counter).resume() == 1


def test_it_is_ours_from_the_first_line_on_as_long_as_the_agent_is_there(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first = agent(path, ["final_answer(1)", "final_answer(2)"])
    assert not path.exists()
    first.run("Task.")
    with another_program(path) as other:
        assert "another program goes on with the record" in said(other)
    second = agent(path, [])
    second.resume()
    del first
    gc.collect()
    with another_program(path) as other:
        assert "another program goes on with the record" in said(other)
    del second
    eventually(lambda: is_free(path), "it is still held")


class Owner:
    """Whoever goes on with a record."""


def test_a_file_is_shared_within_the_program_until_the_last_has_gone(tmp_path: Path) -> None:
    path, one, two = tmp_path / "run.jsonl", Owner(), Owner()
    with pytest.raises(FileNotFoundError):
        hold(path, one)
    hold(path, one, create=True)
    assert path.stat().st_mode & 0o077 == 0
    (tmp_path / "link").symlink_to(path)
    hold(tmp_path / "link", two)
    del one
    assert not is_free(path)
    del two
    assert is_free(path)


def test_owners_come_and_go_in_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.touch()

    def come_and_go(_: int) -> None:
        for _ in range(500):
            hold(path, Owner())

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(come_and_go, range(4))) == [None] * 4
    assert is_free(path)


def test_a_new_file_of_the_same_name_is_another(tmp_path: Path) -> None:
    path, one, two = tmp_path / "run.jsonl", Owner(), Owner()
    hold(path, one, create=True)
    path.rename(tmp_path / "old")
    hold(path, two, create=True)
    del one
    assert not is_free(path)
    assert is_free(tmp_path / "old")
