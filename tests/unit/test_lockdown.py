"""The create call as a pure function of a session and its limits; an owner told from every other process."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image.launcher import __main__ as launcher
from orchestrator.config import Limits
from orchestrator.sandbox import seccomp
from orchestrator.sandbox.lockdown import (
    BRANCHES_FACTOR,
    FILES,
    MASKED_PATHS,
    READONLY_PATHS,
    STATES,
    Owner,
    Session,
    create_body,
    owner_is_alive,
)
from tests.unit.apart import wait_until, where_processes_are_hidden
from tests.unit.ready import SESSION

GOLDEN: dict[str, Any] = {
    "Image": "sha256:abc",
    "Cmd": [
        *("--supervisor-uid=1000", "--runner-uid=200007", "--memory=536870912", "--disk=67108864"),
        *("--pids=128", "--states=64", "--nofile=256", "--lease=60.0", "--lifetime=86400.0"),
        *("--packages=json,numpy", "--landlock=1"),
    ],
    "User": "0:0",
    "Hostname": "sandbox",
    "Env": [],
    "WorkingDir": "/",
    "Tty": False,
    "OpenStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "NetworkDisabled": True,
    "Healthcheck": {"Test": ["NONE"]},
    "Labels": {
        "cellblock.owner": "12:345:boot",
        "cellblock.session": "s1",
        "cellblock.created-monotonic": "1000",
        "cellblock.deadline-monotonic": "87400",
    },
    "HostConfig": {
        "NetworkMode": "none",
        "IpcMode": "none",
        "PidMode": "",
        "UTSMode": "",
        "CgroupnsMode": "private",
        "Privileged": False,
        "CapDrop": ["ALL"],
        "CapAdd": ["SETUID", "SETGID", "SETPCAP"],
        "SecurityOpt": ["no-new-privileges:true", f"seccomp={json.dumps(seccomp.profile())}"],
        "Devices": [],
        "ReadonlyRootfs": True,
        "Tmpfs": {
            "/workspace": ("rw,noexec,nosuid,nodev,size=67108864,nr_inodes=4096,uid=200007,gid=200007,mode=0700"),
            "/branches": "rw,noexec,nosuid,nodev,size=268435456,nr_inodes=16384,uid=200007,gid=200007,mode=0700",
            "/tmp": "rw,noexec,nosuid,nodev,size=16777216,nr_inodes=1024,uid=200007,gid=200007,mode=0700",
        },
        "Mounts": [
            {
                "Type": "bind",
                "Source": "/host/s1",
                "Target": "/run/s",
                "ReadOnly": False,
                "BindOptions": {"Propagation": "rprivate"},
            }
        ],
        "MaskedPaths": list(MASKED_PATHS),
        "ReadonlyPaths": list(READONLY_PATHS),
        "Memory": 512 << 20,
        "MemorySwap": 512 << 20,
        "NanoCpus": 1_000_000_000,
        "CpuShares": 128,
        "PidsLimit": 128,
        "OomScoreAdj": 100,
        "Ulimits": [
            {"Name": "core", "Soft": 1, "Hard": 1},
            {"Name": "nofile", "Soft": 512, "Hard": 512},
            {"Name": "memlock", "Soft": 0, "Hard": 0},
            {"Name": "msgqueue", "Soft": 0, "Hard": 0},
        ],
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": True,
        "LogConfig": {"Type": "none"},
        "Init": False,
    },
}

sessions = st.builds(
    Session,
    id=st.text(max_size=10),
    image=st.text(max_size=10),
    socket_dir=st.text(max_size=20),
    supervisor_uid=st.integers(1, 1 << 31),
    runner_uid=st.integers(1, 1 << 31),
    owner=st.text(max_size=20),
    created=st.floats(0, 1e10),
    lease=st.floats(5, 3600),
    lifetime=st.floats(60, 1e6),
    packages=st.just(("json", "numpy")),
    landlock=st.booleans(),
)
limits = st.builds(
    Limits,
    memory=st.sampled_from(["64m", "512m", "2g"]),
    cpus=st.floats(0.01, 64),
    pids=st.integers(24, 1000),
    disk=st.sampled_from(["64k", "64m"]),
    inodes=st.integers(16, 10_000),
    nofile=st.integers(64, 1000),
)


def flat(body: Any, path: str = "") -> dict[str, Any]:
    """Every leaf by its path."""
    parts = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else None
    if parts is None:
        return {path: body}
    return {p: v for key, value in parts for p, v in flat(value, f"{path}/{key}").items()}


def test_the_create_call_is_this() -> None:
    assert create_body(SESSION, Limits()) == GOLDEN


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/kallsyms", "/sys/kernel"])
def test_what_tells_about_the_host_is_masked(path: str) -> None:
    assert path in MASKED_PATHS
    assert "/proc/sys" in READONLY_PATHS


@settings(max_examples=50)
@given(sessions, limits)
def test_no_session_and_no_limits_change_a_restriction(session: Session, given_limits: Limits) -> None:
    body, golden = flat(create_body(session, given_limits)), flat(GOLDEN)
    assert body.keys() == golden.keys()
    changed = {path for path in golden if body[path] != golden[path]}
    of_a_session = ("/Image", "/Cmd/", "/Labels/", "/HostConfig/Mounts/0/Source", "/HostConfig/Tmpfs/")
    of_limits = ("Memory", "MemorySwap", "NanoCpus", "PidsLimit", "Ulimits/1/")
    allowed = (*of_a_session, *(f"/HostConfig/{name}" for name in of_limits))
    assert {path for path in changed if not path.startswith(allowed)} == set()
    for place in ("/workspace", "/branches", "/tmp"):
        options = body[f"/HostConfig/Tmpfs/{place}"]
        assert options.startswith("rw,noexec,nosuid,nodev,size=")
        assert f"uid={session.runner_uid},gid={session.runner_uid},mode=0700" in options


@settings(max_examples=30)
@given(sessions, limits)
def test_nothing_but_session_and_limits_is_looked_at(session: Session, given_limits: Limits) -> None:
    first = create_body(session, given_limits)
    environ, folder = dict(os.environ), os.getcwd()
    try:
        os.environ.clear()
        os.environ.update(DOCKER_HOST="tcp://elsewhere", CELLBLOCK_LIMITS_PIDS="999", TMPDIR="/elsewhere")
        os.chdir("/")
        second = create_body(session, given_limits)
    finally:
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(folder)
    assert first == second
    assert json.loads(json.dumps(first)) == first  # plain data, no object of ours


def test_every_call_makes_a_body_of_its_own() -> None:
    body = create_body(SESSION, Limits())
    body["HostConfig"]["CapAdd"].append("SYS_ADMIN")
    body["HostConfig"]["MaskedPaths"].clear()
    body["HostConfig"]["Mounts"][0]["Source"] = "/"
    assert create_body(SESSION, Limits()) == GOLDEN


def test_a_user_id_is_the_only_thing_that_two_sessions_users_share_not() -> None:
    other = dataclasses.replace(SESSION, runner_uid=200_008)
    one, two = flat(create_body(SESSION, Limits())), flat(create_body(other, Limits()))
    assert {path for path in one if one[path] != two[path]} == {
        "/Cmd/1",
        "/HostConfig/Tmpfs//workspace",
        "/HostConfig/Tmpfs//branches",
        "/HostConfig/Tmpfs//tmp",
    }


@settings(max_examples=30)
@given(limits)
def test_what_holds_states_takes_no_process_from_user_code(given_limits: Limits) -> None:
    body = create_body(SESSION, given_limits)
    assert body["HostConfig"]["PidsLimit"] == given_limits.pids + STATES
    assert f"--pids={given_limits.pids + STATES}" in body["Cmd"]
    stage = launcher.parse(body["Cmd"])
    assert (stage.pids, stage.states) == (given_limits.pids + STATES, STATES)
    assert (stage.supervisor_uid, stage.runner_uid) == (SESSION.supervisor_uid, SESSION.runner_uid)
    assert (stage.lease, stage.lifetime) == (SESSION.lease, SESSION.lifetime)


@pytest.mark.parametrize(("nofile", "of_the_container"), [(64, FILES), (FILES, FILES), (4000, 4000)])
def test_what_user_code_may_open_takes_nothing_from_the_supervisor(nofile: int, of_the_container: int) -> None:
    body = create_body(SESSION, Limits(nofile=nofile))
    ulimits = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in body["HostConfig"]["Ulimits"]}
    assert ulimits["nofile"] == (of_the_container, of_the_container)
    assert set_in_a_child(body, resource.RLIMIT_NOFILE) == (nofile, nofile)


@pytest.mark.parametrize(("pids", "of_user_code"), [(24, 4), (25, 5), (64, 44), (1000, 980)])
def test_user_code_may_have_the_processes_that_the_supervisor_does_not_need(pids: int, of_user_code: int) -> None:
    body = create_body(SESSION, Limits(pids=pids))
    assert set_in_a_child(body, resource.RLIMIT_NPROC) == (of_user_code + STATES,) * 2


def set_in_a_child(body: dict[str, Any], limit: int) -> tuple[int, int]:
    """What the launcher lets the runner have. In a child: what is set cannot be raised again."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        launcher.limit_runner(launcher.parse(body["Cmd"]))
        os.write(write, json.dumps(resource.getrlimit(limit)).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(read, "rb") as said:
        os.close(write)
        soft, hard = json.loads(said.read())
    return soft, hard


def test_the_branches_have_room_for_several_workspaces() -> None:
    tmpfs = create_body(SESSION, Limits(disk="1m", inodes=100))["HostConfig"]["Tmpfs"]
    assert "size=1048576,nr_inodes=100," in tmpfs["/workspace"]
    assert f"size={BRANCHES_FACTOR << 20},nr_inodes={BRANCHES_FACTOR * 100}," in tmpfs["/branches"]


# -------------------------------------------------------------------------------------------------------- owners


def test_this_process_is_alive_and_one_like_it_is_not() -> None:
    me = Owner.me()
    assert (me.pid, me) == (os.getpid(), Owner.of(os.getpid()))
    assert owner_is_alive(str(me))
    for other in (
        dataclasses.replace(me, started=str(int(me.started) + 1)),  # a later process with the same pid
        dataclasses.replace(me, boot="11111111-2222-3333-4444-555555555555"),  # one before the last boot
        dataclasses.replace(me, pid=1),
    ):
        assert not owner_is_alive(str(other))


def test_one_in_another_pid_namespace_may_be_alive_until_the_next_boot() -> None:
    other = dataclasses.replace(Owner.me(), namespace="1")
    assert owner_is_alive(str(other))
    assert not owner_is_alive(str(dataclasses.replace(other, boot="11111111-2222-3333-4444-555555555555")))


def test_a_child_is_alive_until_it_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        owner = Owner.of(child.pid)
        assert owner is not None
        assert owner != Owner.me()
        assert owner_is_alive(str(owner))
    finally:
        child.kill()
        child.wait(10)
        assert child.stdin
        child.stdin.close()
    assert not owner_is_alive(str(owner))
    assert Owner.of(child.pid) != owner


def test_a_zombie_is_not_alive_although_nobody_has_asked_how_it_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = str(Owner.of(child.pid))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert os.path.exists(f"/proc/{child.pid}")
    assert not owner_is_alive(owner)
    child.communicate(timeout=10)


FIRST_THREAD_ENDS = """
import ctypes, threading
threading.Thread(target=input).start()
print(flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_of_which_only_the_first_thread_has_ended_is_alive() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", FIRST_THREAD_ENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    child.stdout.readline()
    stat = Path(f"/proc/{child.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(") ")[2].startswith("Z"), "it looks like a zombie")
    assert owner_is_alive(str(Owner.of(child.pid)))
    child.kill()
    child.communicate(timeout=10)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a /proc that hides")
def test_one_that_proc_does_not_show_may_be_alive() -> None:
    mine = Owner.me()
    me, ended = str(mine), str(dataclasses.replace(mine, pid=(1 << 22) - 1))  # above the pids of small machines

    @where_processes_are_hidden
    def look() -> None:
        assert not os.path.exists(f"/proc/{mine.pid}")
        assert owner_is_alive(me)
        assert not owner_is_alive(ended)
        assert not owner_is_alive(str(dataclasses.replace(mine, boot="11111111-2222-3333-4444-555555555555")))

    look()


def test_a_process_with_a_confusing_name_is_told_apart_too(tmp_path: Path) -> None:
    program = tmp_path / ") S 1 ("
    program.symlink_to("/bin/cat")
    child = subprocess.Popen([str(program)], stdin=subprocess.PIPE)
    try:
        owner = Owner.of(child.pid)
        assert owner is not None
        assert int(owner.started) >= int(Owner.me().started)
    finally:
        child.communicate(timeout=10)


@pytest.mark.parametrize(
    "label", ["", ":", "x", "0:0:0", "-1:0:0", "1", "999999999:1:b", "1:1:b:c", "../1:1:b", "²:1:b", "9" * 5000]
)
def test_a_label_that_names_no_living_process_is_of_nobody(label: str) -> None:
    assert owner_is_alive(label) is False
