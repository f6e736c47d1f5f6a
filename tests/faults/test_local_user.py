"""Another user of the same machine: reaches no session, and learns no secret from the process table."""

from __future__ import annotations

import ast
import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator import Config, Sandbox
from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.engine import engine
from orchestrator.sandbox.folders import SessionFolder
from tests.conftest import mine
from tests.faults.inside import Inside
from tests.faults.traces import Made, uid_of
from tests.unit.apart import ORDINARY

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user"),
]

CANARY = "canary-0e5a17"  # a credential of the host program's own
CODE_MARK = "mark_in_the_code_5f1c"
SECONDS = 60.0
# Tries everything with the eyes of the user it becomes; says for each what happened.
ATTEMPTS = """
import json, os, socket, sys
user, session, chosen = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)

def connect(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)

attempts = {
    "list the sessions": lambda: os.listdir(os.path.dirname(session)),
    "list a session": lambda: os.listdir(session),
    "list the sockets": lambda: os.listdir(session + "/s"),
    "read the owner": lambda: open(session + "/owner").read(),
    "read the token": lambda: open(session + "/s/token").read(),
    "connect": lambda: connect(session + "/s/executor.sock"),
    "connect through the orchestrator's descriptors": lambda: os.listdir(f"/proc/{os.getppid()}/fd"),
    "make a file": lambda: open(session + "/x", "w"),
    "put another session there": lambda: os.mkdir(os.path.dirname(session) + "/0123456789abcdef"),
    "rename it": lambda: os.rename(session, session + "x"),
    "exchange the folder of all": lambda: os.rename(os.path.dirname(session), os.path.dirname(session) + "x"),
    "signal the orchestrator": lambda: os.kill(os.getppid(), 0),
}
said = {}
for name in chosen or attempts:
    try:
        attempt = attempts[name]
        said[name] = repr(attempt())
    except OSError as error:
        said[name] = type(error).__name__
print(json.dumps(said))
"""


@dataclass
class Running:
    """A sandbox that runs, and what must not be found anywhere."""

    sandbox: Sandbox
    config: Config
    folder: Path
    token: bytes
    inside: Inside


@pytest.fixture
def running(quick: Config, sessions: list[Made], monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    tokens: list[bytes] = []
    original = SessionFolder.make.__func__  # type: ignore[attr-defined]

    def noted(cls: type[SessionFolder], base: Path, session: str, uid: int, token: bytes, most: int) -> SessionFolder:
        tokens.append(token)
        made: SessionFolder = original(cls, base, session, uid, token, most)
        return made

    monkeypatch.setattr(SessionFolder, "make", classmethod(noted))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with Sandbox(config=quick) as sandbox:
        sandbox.run_code(f"{CODE_MARK} = 1")
        folder = Path(quick.runtime_dir) / sessions[0].session
        yield Running(sandbox, quick, folder, tokens[0], Inside(quick, mine(quick)[0].id))


def attempts(user: int, session: Path, *chosen: str) -> dict[str, str]:
    command = [sys.executable, "-I", "-c", ATTEMPTS, str(user), str(session), json.dumps(chosen)]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


def test_another_user_reaches_nothing_of_a_session(running: Running) -> None:
    said = attempts(ORDINARY, running.folder)
    assert set(said.values()) == {"PermissionError"}, said


def test_the_attempts_would_be_noticed_if_they_worked(running: Running) -> None:
    """The same by root, who may do all of it, as far as it breaks nothing: else the test before proves nothing."""
    said = attempts(0, running.folder, "list the sessions", "list a session", "list the sockets", "connect")
    assert said.pop("connect") == "None"
    found = {name: sorted(ast.literal_eval(names)) for name, names in said.items()}
    assert list(found.values()) == [[running.folder.name], ["owner", "s"], ["executor.sock"]]


def test_the_runners_own_user_reaches_nothing_of_it_either(running: Running, sessions: list[Made]) -> None:
    said = attempts(sessions[0].runner_uid, running.folder)
    assert set(said.values()) == {"PermissionError"}, said


def test_no_secret_is_in_the_arguments_or_the_environment_of_any_process(running: Running) -> None:
    token = running.token
    secrets = {token, token.hex().encode(), base64.b64encode(token), repr(token).encode(), CANARY.encode()}
    containers = {pid for pid in everybody() if same_namespace(pid, running.inside.supervisor)}
    assert len(containers) >= 3  # supervisor, warden, head
    for pid in everybody():
        arguments = read(pid, "cmdline")
        assert not any(secret in arguments for secret in secrets), pid
        assert CODE_MARK.encode() not in arguments
        if pid != os.getpid():  # whose own environment is where the credential comes from
            assert not any(secret in read(pid, "environ") for secret in secrets), pid


def everybody() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def same_namespace(pid: int, other: int) -> bool:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{other}/ns/pid")
    return False


def read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def test_no_secret_is_in_what_the_engine_tells_of_a_container(running: Running) -> None:
    told = json.dumps(engine(running.config).inspect_container(mine(running.config)[0].id))
    for secret in (running.token.hex(), base64.b64encode(running.token).decode(), CANARY, CODE_MARK):
        assert secret not in told


def test_the_token_is_gone_as_soon_as_it_has_been_read(running: Running) -> None:
    assert sorted(os.listdir(running.folder)) == ["owner", "s"]
    assert os.listdir(running.folder / "s") == ["executor.sock"]


# Paths that somebody else has made before.


def test_a_runtime_folder_that_somebody_else_has_made_or_linked_is_refused(quick: Config, place: Path) -> None:
    (place / "elsewhere").mkdir(mode=0o700)
    (place / "linked").symlink_to("elsewhere")
    (place / "others").mkdir(mode=0o700)
    os.chown(place / "others", ORDINARY, ORDINARY)
    (place / "between").mkdir()
    (place / "between").chmod(0o777)
    for name in ("linked", "others", "between/run"):
        with pytest.raises(SandboxStartError, match=r"0700|others may change"):
            Sandbox(config=replace(quick, runtime_dir=str(place / name))).run_code("1")
    assert mine(quick) == []
    for name in ("between", "others", "elsewhere"):  # nothing was made in any
        (place / name).rmdir()
    (place / "linked").unlink()


def test_the_supervisor_is_a_user_of_its_own(running: Running, sessions: list[Made]) -> None:
    assert uid_of(running.inside.supervisor) == sessions[0].supervisor_uid
    assert os.stat(running.folder / "s").st_uid == sessions[0].supervisor_uid
