"""Attacks with many sandboxes: opened without end, and at work while one of them is attacked."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from orchestrator import Config, Limits, Sandbox
from orchestrator.sandbox.folders import own_runtime_dir, owner_of
from orchestrator.sandbox.lockdown import Owner
from tests.attacks.oracle import Held
from tests.attacks.registry import CASES
from tests.conftest import mine
from tests.waiting import eventually

pytestmark = pytest.mark.docker

DEADLINE = 60.0  # seconds
OTHERS = 4  # sandboxes beside the one that is attacked
ROUNDS, AT_ONCE = 2, 3  # sandboxes that are opened and closed
# Of each kind of harm one: time, memory, a crash, a flood, processes, forged records.
HARM = ("RES-10", "RES-02", "RES-14", "RES-08", "TKO-16", "TKO-01c", "TKO-07")


def test_opening_and_closing_leaves_nothing(config: Config) -> None:
    Sandbox().close()

    def open_and_close() -> None:
        with Sandbox(limits=Limits(memory="128m")) as sandbox:
            assert sandbox.run_code("1 + 1").value == 2

    def storm() -> None:
        threads = [threading.Thread(target=open_and_close) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)

    for _ in range(2):  # pools grow to their size
        storm()
    before = Held.now()
    for _ in range(ROUNDS):
        storm()
    assert not (grown := Held.now().has_grown_since(before)), grown
    assert mine(config) == []
    owners = [owner_of(path) for path in own_runtime_dir(config).iterdir() if path.is_dir()]
    assert [owner for owner in owners if owner == str(Owner.me())] == [], "folders of sessions left behind"


def test_the_others_finish_while_one_is_attacked(config: Config) -> None:
    harm = [step for id in HARM for case in CASES if case.id == id for step in case.steps]
    settings = replace(config, grace=0.3, limits=Limits(memory="128m", output="64k"))
    over, counts = threading.Event(), [0] * OTHERS

    def work(number: int) -> None:
        with Sandbox(config=settings) as sandbox:
            sandbox.run_code("n = 0")
            while not over.is_set():
                execution = sandbox.run_code("n += 1; n", timeout=DEADLINE)
                assert execution.value == counts[number] + 1, execution
                counts[number] = execution.value

    threads = [threading.Thread(target=work, args=(number,)) for number in range(OTHERS)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: min(counts) >= 1, lambda: f"not all have begun: {counts}", DEADLINE)
        with Sandbox(config=settings, authorized_imports=["*"]) as attacked:
            for step in harm:
                attacked.run_code(step.replace("{R}", "'there'"), timeout=0.5)
                if not attacked.run_code("1 + 1").ok:  # nothing was left to go back to, and it said so
                    assert attacked.run_code("1 + 1").value == 2
    finally:
        over.set()
        for thread in threads:
            thread.join(DEADLINE)
    assert min(counts) > len(harm), counts
