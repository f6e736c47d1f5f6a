"""The launcher: a restriction that the kernel refuses ends the start, whichever it is and whosever it was to be."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from executor_image.launcher import __main__ as launcher
from executor_image.launcher import landlock, privileges, seccomp, visible
from executor_image.launcher.landlock import OWN, READ, Grant
from tests.unit.apart import ORDINARY, ordinary_folder

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root, which the launcher has and gives up")

STAGE = launcher.Stage(
    supervisor_uid=ORDINARY - 1,
    runner_uid=ORDINARY,
    memory=4 << 30,
    disk=1 << 20,
    pids=4000,
    states=10,
    nofile=256,
    lease=5.0,
    lifetime=60.0,
    packages=frozenset(),
    landlock=bool(landlock.version()),
)
ARGUMENTS = [
    f"--{name.replace('_', '-')}={value}"
    for name, value in (vars(STAGE) | {"packages": "re", "landlock": int(STAGE.landlock)}).items()
]
ALL_GIVE_UP = ("drop_bounding_set", "become", "drop_capabilities", "forbid_new_privileges")
OF_THE_RUNNER = [
    *((privileges, name) for name in (*ALL_GIVE_UP, "limit")),
    *((landlock, name) for name in ("restrict", "check") if STAGE.landlock),
    (seccomp, "install"),
]
OF_THE_OTHERS = [(privileges, name) for name in (*ALL_GIVE_UP, "forbid_inspection")]


def each(restrictions: list[tuple[ModuleType, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("module", "name"), restrictions, ids=[name for _, name in restrictions])


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is only in a container, elsewhere. The runner's program is nowhere: it would begin after its last word."""
    with ordinary_folder() as folder:
        monkeypatch.setattr(launcher, "WORKSPACE", str(folder))
        monkeypatch.setattr(visible, "STDLIB", "/usr")
        monkeypatch.setattr(visible, "grants", lambda names: [Grant("/usr", READ), Grant(str(folder), OWN)])
        yield


def refuse(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    """From now on the kernel does not do that."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(f"{name} is refused")

    monkeypatch.setattr(module, name, refused)


def said(become: Callable[[launcher.Stage, int, int], None]) -> int:
    """What a child says that becomes it; SystemExit without a word."""
    (ours, theirs), (report, word) = socket.socketpair(), os.pipe()
    child = launcher.forked(lambda: become(STAGE, launcher.high(theirs.fileno()), launcher.high(word)))
    for end in (ours, theirs):
        end.close()  # which ends a warden that has begun
    os.close(word)
    try:
        return launcher.said_of(report)
    finally:
        os.waitpid(child, 0)


def become_runner(stage: launcher.Stage, channel: int, word: int) -> None:
    out = os.open(os.devnull, os.O_WRONLY)
    launcher.become_runner(stage, channel, launcher.high(out), launcher.high(out), word)


def test_a_runner_that_is_confined_says_so() -> None:
    assert said(become_runner) == landlock.version()


@each(OF_THE_RUNNER)
def test_a_runner_that_cannot_be_confined_says_nothing_and_there_is_no_start(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, module, name)
    with pytest.raises(SystemExit, match="could not be confined"):
        said(become_runner)


def test_a_warden_that_has_given_up_everything_says_so() -> None:
    assert said(launcher.become_warden) == 1


@each(OF_THE_OTHERS)
def test_a_warden_that_cannot_give_up_everything_says_nothing_and_there_is_no_start(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, module, name)
    with pytest.raises(SystemExit, match="could not be confined"):
        said(launcher.become_warden)


def started(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the launcher itself has come to where it would hear of the others and become the supervisor."""
    monkeypatch.setattr("sys.argv", ["launcher", *ARGUMENTS])
    monkeypatch.setattr(launcher, "said_of", lambda report: os._exit(0))
    return os.waitstatus_to_exitcode(os.waitpid(launcher.forked(launcher.main), 0)[1]) == 0


def test_a_launcher_that_has_given_up_everything_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(monkeypatch)


@each(OF_THE_OTHERS)
def test_a_launcher_that_cannot_give_up_everything_goes_no_further(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, module, name)
    assert not started(monkeypatch)


def test_the_arguments_are_those_of_the_stage() -> None:
    assert launcher.parse(ARGUMENTS) == launcher.Stage(**(vars(STAGE) | {"packages": frozenset({"re"})}))
