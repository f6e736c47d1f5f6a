"""What a supervisor found, judged: everything in force passes, each fault alone flips its own layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import IsolationError, SandboxStartError
from orchestrator.sandbox.isolation import MAX_PROOF, examine, require

SUPERVISOR, RUNNER = 1000, 200_007
SAFE = "rw,noexec,nosuid,nodev,relatime,size=64m"
LAYERS = (
    "two unprivileged users",
    "no capabilities in any process",
    "no new privileges",
    "system call filter",
    "no network",
    "read-only root",
    "writable places are few and run nothing",
)


def process(pid: int, uid: int) -> pb.Process:
    return pb.Process(pid=pid, uid=uid, no_new_privileges=True, seccomp_mode=2, seccomp_filters=2)


def good() -> pb.Ready:
    return pb.Ready(
        processes=[process(1, SUPERVISOR), process(7, RUNNER), process(8, RUNNER)],
        interfaces=["lo"],
        root_read_only=True,
        supervisor_uid=SUPERVISOR,
        runner_uid=RUNNER,
        python_version="3.13.5",
        kernel="6.12.0",
        cgroup_version=2,
        writable_mounts=[
            pb.Mount(path="/workspace", options=SAFE),
            pb.Mount(path="/tmp", options=SAFE),
            pb.Mount(path="/branches", options=SAFE),
            pb.Mount(path="/run/s", options="rw,relatime"),
            pb.Mount(path="/dev/pts", options="rw,nosuid,noexec"),
            pb.Mount(path="/dev/mqueue", options="rw,nosuid,nodev,noexec"),
        ],
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


FAULTS: list[tuple[str, Callable[[pb.Ready], object]]] = [
    (LAYERS[0], set_process(1, uid=0)),
    (LAYERS[0], set_process(2, uid=4242)),
    (LAYERS[0], set_ready(runner_uid=SUPERVISOR)),
    (LAYERS[0], set_ready(supervisor_uid=0)),
    (LAYERS[0], lambda ready: ready.ClearField("processes")),
    (LAYERS[0], lambda ready: [ready.processes.pop() for _ in range(2)]),
    (LAYERS[1], set_process(0, capabilities=1)),
    (LAYERS[1], set_process(2, capabilities=1 << 63)),
    (LAYERS[2], set_process(1, no_new_privileges=False)),
    (LAYERS[3], set_process(0, seccomp_mode=0)),
    (LAYERS[3], set_process(2, seccomp_mode=1)),
    (LAYERS[4], interfaces("lo", "eth0")),
    (LAYERS[4], interfaces("eth0")),
    (LAYERS[4], interfaces()),
    (LAYERS[5], set_ready(root_read_only=False)),
    (LAYERS[6], mount("/", "rw")),
    (LAYERS[6], mount("/dev/shm", SAFE)),
    (LAYERS[6], mount("/workspace/../etc", SAFE)),
    (LAYERS[6], options(0, "rw,nosuid,nodev")),
    (LAYERS[6], options(0, "rw,noexec,nodev")),
    (LAYERS[6], options(1, "rw,noexec,nosuid")),
    (LAYERS[6], options(2, "rw,nosuid,nodev")),
    (LAYERS[6], options(2, "rw,noexec,nodev")),
    (LAYERS[6], options(2, "rw,noexec,nosuid")),
    (LAYERS[6], mount("/branches/1", SAFE)),
    (LAYERS[6], mount("/branchesx", SAFE)),
    (LAYERS[6], options(1, "rw,xnoexec,nosuid,nodev")),
]


def test_a_good_container_passes() -> None:
    found = examine(good(), SUPERVISOR, RUNNER)
    assert tuple(layer.name for layer in found.layers) == LAYERS
    assert all(layer.proof for layer in found.layers)
    assert found.complete
    assert (found.kernel, found.cgroup_version, found.python_version) == ("6.12.0", 2, "3.13.5")
    require(found)


@pytest.mark.parametrize(("layer", "fault"), FAULTS)
def test_each_fault_flips_its_own_layer_and_is_named(layer: str, fault: Callable[[pb.Ready], object]) -> None:
    ready = good()
    fault(ready)
    found = examine(ready, SUPERVISOR, RUNNER)
    assert [each.name for each in found.layers if not each.in_force] == [layer]
    assert not found.complete
    with pytest.raises(IsolationError, match=layer) as caught:
        require(found)
    assert isinstance(caught.value, SandboxStartError)
    assert not any(other in str(caught.value) for other in set(LAYERS) - {layer})


def test_one_uid_for_both_is_refused_even_if_everybody_agrees_on_it() -> None:
    ready = good()
    ready.supervisor_uid = ready.runner_uid = SUPERVISOR
    for each in ready.processes:
        each.uid = SUPERVISOR
    assert not examine(ready, SUPERVISOR, SUPERVISOR).layers[0].in_force


def test_a_report_of_nothing_is_refused() -> None:
    found = examine(pb.Ready(), SUPERVISOR, RUNNER)
    assert {layer.name for layer in found.layers if not layer.in_force} >= {LAYERS[0], LAYERS[4], LAYERS[5]}


def test_every_missing_layer_is_named_at_once() -> None:
    ready = good()
    for fault in (set_process(0, uid=0, capabilities=1, no_new_privileges=False, seccomp_mode=0), interfaces("eth0")):
        fault(ready)
    for fault in (set_ready(root_read_only=False), mount("/", "rw")):
        fault(ready)
    with pytest.raises(IsolationError) as caught:
        require(examine(ready, SUPERVISOR, RUNNER))
    assert all(layer in str(caught.value) for layer in LAYERS)


def test_the_process_at_fault_is_part_of_the_proof() -> None:
    ready = good()
    ready.processes[1].capabilities = 0x200
    assert "7: 0x200" in examine(ready, SUPERVISOR, RUNNER).layers[1].proof


def test_the_supervisors_words_cannot_drive_a_terminal() -> None:
    ready = good()
    ready.kernel = "6.1\x1b[2J\n" + "k" * 1000
    ready.python_version = "3.13\x07"
    ready.interfaces.append("\x1b]0;title\x07")
    mount("/x\x1b[31m", "rw")(ready)
    found = examine(ready, SUPERVISOR, RUNNER)
    texts = [found.kernel, found.python_version, *(layer.proof for layer in found.layers)]
    assert all(text.isprintable() and len(text) <= MAX_PROOF for text in texts)
