"""What a supervisor found, judged: everything in force passes, each fault alone flips its own layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from executor_api.v1 import executor_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import Limits
from orchestrator.errors import IsolationError, SandboxStartError
from orchestrator.sandbox.isolation import Isolation, examine, require
from orchestrator.sandbox.layers import MAX_PROOF, NO_LIMIT
from orchestrator.sandbox.lockdown import STATES
from tests.unit.ready import (
    ASKED,
    CAPABILITIES,
    CLOSED,
    CPU_LIMIT,
    DEVICES,
    EACH_PROCESS,
    FILTER,
    FOLDERS,
    FURTHER,
    MASKED,
    MEMORY,
    MEMORY_LIMIT,
    NEEDED,
    NETWORK,
    OOM,
    PLACES,
    PRIVILEGES,
    PROCESS_LIMIT,
    ROOT,
    RUNNER,
    RUNNER_FILTER,
    SAFE,
    SETTINGS,
    SUPERVISOR,
    USERS,
    folder,
    good,
)


def mount(path: str, options: str) -> Callable[[pb.Ready], object]:
    return lambda ready: ready.writable_mounts.add(path=path, options=options)


def options(index: int, text: str) -> Callable[[pb.Ready], object]:
    return lambda ready: setattr(ready.writable_mounts[index], "options", text)


def set_process(index: int, **fields: object) -> Callable[[pb.Ready], object]:
    return lambda ready: [setattr(ready.processes[index], name, value) for name, value in fields.items()]


def set_ready(**fields: object) -> Callable[[pb.Ready], object]:
    return lambda ready: [setattr(ready, name, value) for name, value in fields.items()]


def interfaces(*names: str) -> Callable[[pb.Ready], object]:
    def change(ready: pb.Ready) -> None:
        del ready.interfaces[:]
        ready.interfaces.extend(names)

    return change


def set_cgroup(**fields: object) -> Callable[[pb.Ready], object]:
    return lambda ready: [setattr(ready.cgroup, name, value) for name, value in fields.items()]


def unset_cgroup(name: str) -> Callable[[pb.Ready], object]:
    return lambda ready: ready.cgroup.ClearField(name)


def set_mount(index: int, **fields: object) -> Callable[[pb.Ready], object]:
    return lambda ready: [setattr(ready.writable_mounts[index], name, value) for name, value in fields.items()]


def remove_mount(index: int) -> Callable[[pb.Ready], object]:
    def change(ready: pb.Ready) -> None:
        del ready.writable_mounts[index]

    return change


def rlimit(index: int, hard: int) -> Callable[[pb.Ready], object]:
    return lambda ready: setattr(ready.runner_limits[index], "hard", hard)


def device(path: str, major: int, minor: int, block: bool = False) -> Callable[[pb.Ready], object]:
    return lambda ready: ready.devices.add(path=path, major=major, minor=minor, block=block)


FAULTS: list[tuple[str, Callable[[pb.Ready], object]]] = [
    (CAPABILITIES, set_process(0, capabilities=1)),
    (CAPABILITIES, set_process(2, capabilities=1 << 63)),
    (PRIVILEGES, set_process(1, no_new_privileges=False)),
    (FILTER, set_process(0, seccomp_mode=0)),
    (FILTER, set_process(2, seccomp_mode=1)),
    (FILTER, lambda ready: ready.allowed_calls.append("io_uring_setup")),
    (RUNNER_FILTER, set_process(1, seccomp_filters=1)),
    (RUNNER_FILTER, set_process(2, seccomp_filters=0)),
    (CLOSED, set_process(0, inspectable=True)),
    (CLOSED, set_process(2, inspectable=True)),
    (NETWORK, interfaces("lo", "eth0")),
    (NETWORK, interfaces("eth0")),
    (NETWORK, interfaces()),
    (ROOT, set_ready(root_read_only=False)),
    (PLACES, mount("/", "rw")),
    (PLACES, mount("/dev/shm", SAFE)),
    (PLACES, mount("/workspace/../etc", SAFE)),
    (PLACES, options(0, "rw,nosuid,nodev")),
    (PLACES, options(0, "rw,noexec,nodev")),
    (PLACES, options(1, "rw,noexec,nosuid")),
    (PLACES, options(2, "rw,nosuid,nodev")),
    (PLACES, options(2, "rw,noexec,nodev")),
    (PLACES, options(2, "rw,noexec,nosuid")),
    (PLACES, mount("/branches/1", SAFE)),
    (PLACES, mount("/branchesx", SAFE)),
    (PLACES, options(1, "rw,xnoexec,nosuid,nodev")),
    (FOLDERS, set_mount(0, mode=0o755)),
    (FOLDERS, set_mount(1, mode=0o1777)),
    (FOLDERS, set_mount(3, mode=0o750)),
    (FOLDERS, set_mount(2, uid=SUPERVISOR)),
    (FOLDERS, set_mount(3, uid=RUNNER)),
    (FOLDERS, set_mount(0, bytes=1 << 40)),
    (FOLDERS, set_mount(0, bytes=0)),
    (FOLDERS, set_mount(2, inodes=1 << 40)),
    (FOLDERS, set_mount(1, inodes=0)),
    (FOLDERS, mount("/workspace", SAFE)),
    (FOLDERS, lambda ready: ready.writable_mounts.append(folder("/workspace"))),  # one of them is hidden by the other
    (FOLDERS, remove_mount(0)),
    (FOLDERS, remove_mount(3)),
    (DEVICES, device("/dev/sda", 8, 0, block=True)),
    (DEVICES, device("/dev/null", 1, 3, block=True)),
    (DEVICES, device("/dev/zero", 1, 1)),  # the name of a harmless one, the number of /dev/mem
    (DEVICES, device("/dev/kvm", 10, 232)),
    (DEVICES, lambda ready: ready.ClearField("devices")),
    (MASKED, lambda ready: ready.unmasked_paths.append("/proc/kcore")),
    (SETTINGS, lambda ready: ready.writable_paths.append("/proc/sys")),
    (MEMORY_LIMIT, set_cgroup(memory=NO_LIMIT)),
    (MEMORY_LIMIT, set_cgroup(memory=MEMORY + 1)),
    (MEMORY_LIMIT, set_cgroup(memory=MEMORY // 2)),
    (MEMORY_LIMIT, unset_cgroup("memory")),
    (MEMORY_LIMIT, set_cgroup(swap=1)),
    (MEMORY_LIMIT, unset_cgroup("swap")),
    (PROCESS_LIMIT, set_cgroup(pids=NO_LIMIT)),
    (PROCESS_LIMIT, set_cgroup(pids=64 + STATES + 1)),
    (PROCESS_LIMIT, unset_cgroup("pids")),
    (CPU_LIMIT, set_cgroup(cpus=float("inf"))),
    (CPU_LIMIT, set_cgroup(cpus=float("nan"))),
    (CPU_LIMIT, set_cgroup(cpus=1.01)),
    (CPU_LIMIT, set_cgroup(cpus=0.0)),
    (CPU_LIMIT, unset_cgroup("cpus")),
    *((EACH_PROCESS, rlimit(index, NO_LIMIT)) for index in range(8)),
    (EACH_PROCESS, rlimit(0, 2)),
    (EACH_PROCESS, rlimit(3, 257)),
    (EACH_PROCESS, lambda ready: ready.ClearField("runner_limits")),
    (OOM, set_process(1, oom_score_adj=999)),
    (OOM, set_process(0, oom_score_adj=1000)),
    (OOM, set_process(3, oom_score_adj=1000)),
    (OOM, set_ready(warden_pid=0)),
]


def not_in_force(found: Isolation) -> set[str]:
    return {layer.name for layer in found.layers if not layer.in_force and layer.level == 1}


def test_a_good_container_passes() -> None:
    found = examine(good(), ASKED)
    assert tuple(layer.name for layer in found.layers) == NEEDED + FURTHER
    assert {layer.name for layer in found.layers if layer.in_force} == set(NEEDED)
    assert all(layer.proof for layer in found.layers)
    assert found.complete
    assert (found.kernel, found.cgroup_version, found.python_version) == ("6.12.0", 2, "3.13.5")
    require(found)


@pytest.mark.parametrize(("layer", "fault"), FAULTS)
def test_each_fault_flips_its_own_layer_and_is_named(layer: str, fault: Callable[[pb.Ready], object]) -> None:
    ready = good()
    fault(ready)
    found = examine(ready, ASKED)
    assert not_in_force(found) == {layer}
    assert not found.complete
    assert found.level == 0
    with pytest.raises(IsolationError, match=layer) as caught:
        require(found)
    assert isinstance(caught.value, SandboxStartError)
    assert not any(other in str(caught.value) for other in set(NEEDED) - {layer})


@pytest.mark.parametrize(
    "fault",
    [
        set_process(1, uid=0),
        set_process(1, uid=4242),
        set_ready(runner_uid=SUPERVISOR),
        set_ready(supervisor_uid=0),
        lambda ready: ready.ClearField("processes"),
        lambda ready: [ready.processes.pop() for _ in range(3)],
    ],
)
def test_users_that_are_not_the_two_that_were_asked_for_are_refused(fault: Callable[[pb.Ready], object]) -> None:
    ready = good()
    fault(ready)
    assert USERS in not_in_force(examine(ready, ASKED))


def test_one_uid_for_both_is_refused_even_if_everybody_agrees_on_it() -> None:
    ready = good()
    ready.supervisor_uid = ready.runner_uid = SUPERVISOR
    for each in ready.processes:
        each.uid = SUPERVISOR
    assert not examine(ready, dataclasses.replace(ASKED, runner_uid=SUPERVISOR)).layers[0].in_force


def test_a_report_of_nothing_is_refused() -> None:
    assert not_in_force(examine(pb.Ready(), ASKED)) >= {
        USERS,
        CLOSED,
        NETWORK,
        ROOT,
        FOLDERS,
        DEVICES,
        MEMORY_LIMIT,
        OOM,
    }


def test_the_supervisor_and_the_warden_need_no_filter_of_the_runners() -> None:
    ready = good()
    ready.processes[0].seccomp_filters = ready.processes[3].seccomp_filters = 1
    assert examine(ready, ASKED).complete


def test_without_swap_on_the_machine_no_limit_of_it_is_needed() -> None:
    ready = good()
    ready.cgroup.machine_swap = 0
    ready.cgroup.ClearField("swap")
    assert examine(ready, ASKED).complete


@given(st.integers(64 << 20, 1 << 40))
def test_a_limit_of_memory_may_be_rounded_down_to_a_page_and_never_up(asked: int) -> None:
    limits = Limits(memory=str(asked))
    ready = good()
    for page in (4096, 65536):
        ready.cgroup.memory = asked // page * page
        assert MEMORY_LIMIT not in not_in_force(examine(ready, dataclasses.replace(ASKED, limits=limits)))
    ready.cgroup.memory = asked + 1
    assert MEMORY_LIMIT in not_in_force(examine(ready, dataclasses.replace(ASKED, limits=limits)))


def test_every_missing_layer_is_named_at_once() -> None:
    ready = pb.Ready(
        processes=[pb.Process(pid=1, capabilities=1, inspectable=True, oom_score_adj=1000)],
        interfaces=["eth0"],
        writable_mounts=[pb.Mount(path="/", options="rw")],
        unmasked_paths=["/proc/kcore"],
        writable_paths=["/proc/sys"],
        allowed_calls=["memfd_create"],
    )
    with pytest.raises(IsolationError) as caught:
        require(examine(ready, ASKED))
    assert all(layer in str(caught.value) for layer in NEEDED)


def test_the_process_at_fault_is_part_of_the_proof() -> None:
    ready = good()
    ready.processes[1].capabilities = 0x200
    assert "7: 0x200" in examine(ready, ASKED).layers[1].proof


def test_the_supervisors_words_cannot_drive_a_terminal() -> None:
    ready = good()
    ready.kernel = "6.1\x1b[2J\n" + "k" * 1000
    ready.python_version = "3.13\x07"
    ready.security_label = "a\x1b[31m" * 100
    ready.interfaces.append("\x1b]0;title\x07")
    for _ in range(200):
        mount("/x\x1b[31m", "rw")(ready)
        device("/dev/\x1b[31m", 1, 1)(ready)
        ready.unmasked_paths.append("/proc/\x1b[31m" * 10)
        ready.writable_paths.append("/proc/\x07")
        ready.processes.add(pid=4_000_000_000, uid=1, inspectable=True, oom_score_adj=-1000)
        ready.runner_limits.add(name="\x1b[31m")
        ready.allowed_calls.append("\x1b[31m")
    found = examine(ready, ASKED)
    texts = [found.kernel, found.python_version, *(layer.proof for layer in found.layers)]
    assert all(text.isprintable() and len(text) <= MAX_PROOF for text in texts)
