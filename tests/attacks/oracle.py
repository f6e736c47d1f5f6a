"""What must hold after every attack, whichever it was.

The next step works, and the state is what it was said to be; the policy stands; a neighbour has noticed nothing; each
end is in the audit log; the host has leaked no memory, descriptor, thread or container; nothing secret has been seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator import Config, Execution, State, Status
from orchestrator.audit.log import verify
from tests.attacks.field import Field
from tests.attacks.target import KEPT, Attack, Target
from tests.conftest import mine
from tests.endings import DENIED, OK
from tests.waiting import eventually

NEXT = "print('next'); globals().get('kept')"
MORE_MEMORY = 96 << 20  # bytes that the host may grow by in one case: a result of 4 MiB is held several times over
MORE_FDS, MORE_THREADS = 6, 6  # of pools that grow to their size
IN_ALL = 4  # times as much may the whole suite leave behind


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds."""

    memory: int
    fds: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        fds, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), fds, threads)

    def has_grown_since(self, before: Held, times: int = 1) -> str:
        """What has grown by more than it may; nothing if all is well."""
        grown = {
            "memory": (self.memory - before.memory, MORE_MEMORY),
            "descriptors": (self.fds - before.fds, MORE_FDS),
            "threads": (self.threads - before.threads, MORE_THREADS),
        }
        return ", ".join(f"{more:,} more {what}" for what, (more, may) in grown.items() if more > may * times)


class Watch:
    """Looks at everybody."""

    def __init__(self, config: Config, field: Field) -> None:
        self._config = config
        self._field = field
        self._before: Held | None = None
        self._first: Held | None = None
        self._recorded = 0  # bytes of the audit log before the case

    @contextmanager
    def over(self, target: Target) -> Iterator[Future[None]]:
        """One case: from the clean state, beside a neighbour that works at the same time. What failed begins anew."""
        try:
            target.go_back_to_clean()
            target.heard.clear()
            target.ended.clear()
            target.tokens = {target.token}
            self._recorded = target.log.stat().st_size
            self._before = Held.now()
            self._first = self._first or self._before
            yield target.neighbour.works_meanwhile()
        except BaseException:
            self._field.close()  # the next case fails for reasons of its own, or not at all
            raise

    def everybody_is_well(self, attack: Attack) -> None:
        """Everything that is looked at after a case."""
        next_step_works(attack)
        policy_stands(attack)
        attack.target.neighbour.works()
        self._it_was_recorded(attack)
        nothing_secret_was_seen(attack)
        assert attack.target.listeners.reached() == [], "a listener on the host was reached"
        assert not attack.target.host_file.exists(), "a file was made on the host"
        eventually(lambda: len(mine(self._config)) == 2, "containers: the neighbour's and one more")
        assert self._before is not None
        assert not (grown := Held.now().has_grown_since(self._before)), grown

    def _it_was_recorded(self, attack: Attack) -> None:
        """Each step with the end that it was told to have: what was refused, killed or lost stands in the audit log."""
        with attack.target.log.open("rb") as file:
            file.seek(self._recorded)
            written = file.read()
        records = [json.loads(line) for line in written.splitlines()]
        ends = [
            (record["data"].get("status", record["data"].get("reason")), record["data"].get("state", ""))
            for record in records
            if record["kind"] in ("execution_finished", "execution_unfinished")
        ]
        assert ends == attack.target.ended, "the audit log tells other ends than the caller was told"
        attack.target.heard.append(written)

    def nothing_has_piled_up(self) -> None:
        """Of all cases together."""
        if self._first is not None:
            assert not (grown := Held.now().has_grown_since(self._first, IN_ALL)), grown

    def the_record_holds(self, log: Path) -> None:
        """Nothing of what was done has broken the chain of the audit log."""
        assert verify(log).holds


def next_step_works(attack: Attack) -> None:
    """And its variables are those of before, or it was said that they are not."""
    target, outcome = attack.target, attack.target.run(NEXT)
    if not isinstance(attack.outcomes[-1], Execution):  # the sandbox was given up, and says so until it begins anew
        assert not isinstance(outcome, Execution), outcome
        target.begin_anew()
        outcome = target.run(NEXT)
    if attack.case.may_spoil and isinstance(outcome, Execution) and outcome.state is State.LOST:
        assert outcome.status is Status.OK or outcome.logs.stdout == "", (
            outcome
        )  # told truly: one that died did not begin
        lost, outcome = True, target.run(NEXT)
    else:
        lost = attack.is_lost
    assert isinstance(outcome, Execution), outcome
    assert (outcome.status, outcome.state) == OK, outcome
    assert "next" in outcome.logs.stdout, outcome
    assert outcome.value == KEPT or (lost and outcome.value is None), outcome


def policy_stands(attack: Attack) -> None:
    """With the policy on, the next step is held to it."""
    if attack.cell.policy and attack.case.keeps_policy:
        outcome = attack.target.run("import socket")
        assert isinstance(outcome, Execution), outcome
        assert (outcome.status, outcome.state) == DENIED, outcome


def nothing_secret_was_seen(attack: Attack) -> None:
    """No canary in anything that came out, but the one that the case gets to where nothing holds it."""
    spared = attack.case.canary if not attack.case.is_held(attack.cell) else ""
    heard = b"\n".join(attack.target.heard)
    for token in {*attack.target.tokens, attack.target.token}:
        assert attack.target.canaries.seen(heard, token, spared) == []
