"""What an attack is: data. One file of cases for each section of the corpus; test_attacks.py runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tests.endings import ERROR, OK, Ending

if TYPE_CHECKING:
    from tests.attacks.target import Attack

AMPLE = 15.0  # seconds for code that ends by itself, also on a busy machine
HANG = 0.25  # seconds for code that does not

# What stands in a payload for what only the running test knows; replaced as text, as payloads are full of braces.
CANARY = "{C}"  # path of the file that must not be read
REACHED = "{R}"  # an expression whose value is the word that says that the attack has got there
PORT, UDP_PORT, ABSTRACT = "{PORT}", "{UDP}", "{ABSTRACT}"  # where the test's own listeners are
HOST_FILE = "{H}"  # path of a file on the host that must never come to be

WORD = "REACHED"
# A traceback shows lines of the source: the word must not stand in them.
WORD_EXPRESSION = '("REA" + "CHED")'


class Layer(StrEnum):
    """What holds an attack. The letters are those of the corpus."""

    HOST = "host"  # H
    CONTAINER = "container"  # E: namespaces, mounts, capabilities, the container's system call filter, cgroups
    USERS = "two users"  # S: runner and supervisor are strangers to each other
    SUPERVISOR = "supervisor"  # S: deadlines, counts, frames, nonces
    RUNNER = "runner"  # R: its rlimits, its filter, what its Python is made without
    LANDLOCK = "Landlock"  # R
    POLICY = "policy"  # P: the import allowlist, which is no wall
    NOTHING = "nothing"  # it does get there, and the case says why that is no breach


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of the matrix."""

    policy: bool
    landlock: bool

    @property
    def id(self) -> str:
        """As part of a test's."""
        return f"policy-{'on' if self.policy else 'off'}-landlock-{'on' if self.landlock else 'off'}"

    def __str__(self) -> str:
        return f"policy {'on' if self.policy else 'off'}, landlock {'on' if self.landlock else 'off'}"


CELLS = tuple(Cell(policy, landlock) for policy in (True, False) for landlock in (True, False))

# How a payload that does not end by itself ends where nothing but an interrupt stops it; see driver.py.
HEARD_THERE, IGNORED_THERE = "heard the interrupt", "ignored the interrupt"


class Place(StrEnum):
    """Where the positive control runs."""

    UNGUARDED = "an unguarded container"  # the same image, root, privileged, no filter, writable
    HOST = "a process on the host"  # for listeners on 127.0.0.1, which a container without a network cannot have
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Control:
    """That the attack works where nothing guards: else that it does not work here would prove nothing."""

    place: Place = Place.UNGUARDED
    shows: str = ""  # text that it prints there; empty: the word, or the canary of a case that reads one
    ending: str = ""  # how it ends there, if that is what matters: see driver.py
    steps: tuple[str, ...] = ()  # where the payload has to be put differently there
    absent: str = ""  # text that says that this machine has not got what is attacked: then the control says nothing
    reason: str = ""  # why there is none, or why it differs


UNGUARDED = Control()


def no_control(reason: str) -> Control:
    """There is none, and why."""
    return Control(Place.NOWHERE, reason=reason)


@dataclass(frozen=True, slots=True)
class Case:
    """One attack.

    Attributes:
        id: of the corpus, and a letter where an id has several payloads.
        name: a sentence of what must not work.
        steps: Python source, run one after the other in one sandbox. What is looked for is looked for in the last.
        held_by: the outermost layer that holds it with the policy off.
        denied: with the policy on, its first step is refused as an import.
        endings: status and state that its last step may have.
        says: pattern of the refusal that is seen where it is held, in any of its steps.
        canary: which canary file ``{C}`` is; what is in it is what must not be seen.
        native: needs the image with ctypes, and runs any system call.
        check: what else must hold after it.
        keeps_policy: the allowlist is as it was afterwards.
        may_spoil: the step after it may be told as lost.
        note: why a reach is no breach, or what the case leaves open.
    """

    id: str
    name: str
    steps: tuple[str, ...]
    held_by: Layer
    denied: bool = False
    endings: frozenset[Ending | type[Exception]] = frozenset({OK, ERROR})
    says: str = ""
    canary: str = ""
    native: bool = False
    control: Control = UNGUARDED
    timeout: float = AMPLE
    check: Callable[[Attack], None] | None = None
    keeps_policy: bool = True
    may_spoil: bool = False
    note: str = ""

    def __str__(self) -> str:
        return f"{self.id} {self.name}"

    def is_held(self, cell: Cell) -> bool:
        """True if it must not get there in this column. Where it is False, it must: a claim that nothing is lost by."""
        if self.denied and cell.policy:
            return True
        if self.held_by is Layer.LANDLOCK:
            return cell.landlock
        return self.held_by not in (Layer.POLICY, Layer.NOTHING)


@dataclass(frozen=True, slots=True)
class NotHere:
    """A case of the corpus that has no test here: why it cannot apply, or which tests elsewhere hold it."""

    id: str
    name: str
    reason: str = ""
    tests: tuple[str, ...] = field(default=())


def case(id: str, name: str, *steps: str, held_by: Layer, endings: tuple[Any, ...] = (), **more: Any) -> Case:
    """A case."""
    if endings:
        more["endings"] = frozenset(endings)
    return Case(id, name, steps, held_by, **more)


def reads(id: str, name: str, *steps: str, open_held_by: Layer = Layer.LANDLOCK, **more: Any) -> tuple[Case, Case]:
    """The attack on both canary files: one that only another user may read, and one that everybody may.

    The first is held by the users whatever else is in force. Of the second, only what the kernel grants by path keeps
    the runner: so it shows what Landlock holds and what it does not, and that the payload does work in the sandbox.
    """
    more.setdefault("says", "PermissionError|Permission denied")
    own = case(id, f"{name} a file of another user", *steps, held_by=Layer.USERS, canary="secret", **more)
    return own, replace(
        own, id=f"{id}/open", name=f"{name} a file outside what it was given", held_by=open_held_by, canary="open"
    )


def hangs(id: str, name: str, *steps: str, endings: tuple[Any, ...], control: str, **more: Any) -> Case:
    """Code that does not end by itself. ``control``: how it ends where nobody but an interrupt stops it."""
    more.setdefault("timeout", HANG)
    more.setdefault("held_by", Layer.SUPERVISOR)
    return case(id, name, *steps, endings=endings, control=Control(ending=control), **more)
