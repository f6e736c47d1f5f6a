"""What the supervisor reads from inside: real mounts, real processes, real files of the kernel's form."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from executor_api.v1 import executor_pb2 as pb

from executor_image.supervisor import facts
from executor_image.supervisor.facts import NO_LIMIT, Mounted
from tests.unit.apart import apart, in_own_namespace, mount, ordinary_folder

READ_ONLY, REMOUNT, BIND = 0x1, 0x20, 0x1000  # see mount(2)


# ----------------------------------------------------------------------------------------------------- masked paths


@in_own_namespace
def test_a_path_is_masked_by_an_empty_read_only_folder_or_by_the_null_device(tmp_path: Path) -> None:
    hidden, shown, empty, own, file, plain = (tmp_path / name for name in ("hidden", "shown", "empty", "own", "f", "p"))
    for folder in (hidden, shown, empty, own):
        folder.mkdir()
    for path in (hidden / "secret", shown / "secret", file, plain):
        path.write_text("of the host")
    mount("tmpfs", str(hidden), "tmpfs", None, READ_ONLY)
    mount("tmpfs", str(own), "tmpfs")
    (own / "something").touch()
    mount("none", str(own), None, None, READ_ONLY | REMOUNT)
    mount("/dev/null", str(file), None, None, BIND)
    absent, below = tmp_path / "absent", file / "below"
    paths = [str(path) for path in (hidden, shown, empty, own, file, plain, absent, below)]
    assert list(facts.unmasked(paths, list(facts.mounted()))) == [str(path) for path in (shown, empty, own, plain)]


@in_own_namespace
def test_an_empty_folder_that_can_be_written_masks_nothing(tmp_path: Path) -> None:
    mount("tmpfs", str(tmp_path), "tmpfs")
    assert list(facts.unmasked([str(tmp_path)], list(facts.mounted()))) == [str(tmp_path)]


@apart
def test_what_cannot_be_looked_at_is_not_known_to_be_masked() -> None:
    with ordinary_folder() as folder:
        (folder / "closed").mkdir()
        (folder / "closed" / "x").touch()
        (folder / "closed").chmod(0)
        path = str(folder / "closed" / "x")
        assert list(facts.unmasked([path], [])) == [path]
        (folder / "closed").chmod(0o700)


def test_a_device_is_no_mask_unless_it_is_the_null_device() -> None:
    assert list(facts.unmasked(["/dev/null", "/dev/zero"], [])) == ["/dev/zero"]


@in_own_namespace
def test_a_path_is_writable_unless_its_mount_is_read_only(tmp_path: Path) -> None:
    fixed, free = tmp_path / "fixed", tmp_path / "free"
    for folder in (fixed, free):
        folder.mkdir()
        mount("tmpfs", str(folder), "tmpfs", None, READ_ONLY if folder is fixed else 0)
    assert list(facts.writable([str(fixed), str(free), str(tmp_path / "absent")])) == [str(free)]


@in_own_namespace
def test_a_mount_is_told_with_owner_mode_and_size(tmp_path: Path) -> None:
    mount("tmpfs", str(tmp_path), "tmpfs", "size=1m,nr_inodes=50,mode=0700", 0x8 | 0x2)  # noexec, nosuid
    me = frozenset({os.getuid()})
    (found,) = [m for m in facts.writable_mounts(facts.mounted(), me) if m.path == str(tmp_path)]
    assert {"rw", "noexec", "nosuid"} <= set(found.options.split(","))
    assert (found.uid, found.mode, found.bytes, found.inodes) == (0, 0o700, 1 << 20, 50)
    nobody = frozenset({4242})
    assert str(tmp_path) not in [m.path for m in facts.writable_mounts(facts.mounted(), nobody)]
    tmp_path.chmod(0o707)
    assert str(tmp_path) in [m.path for m in facts.writable_mounts(facts.mounted(), nobody)]
    mount("none", str(tmp_path), None, None, REMOUNT | BIND | READ_ONLY)
    assert str(tmp_path) not in [m.path for m in facts.writable_mounts(facts.mounted(), me)]


@pytest.mark.parametrize(
    ("options", "read_only"),
    [("ro,relatime,rw", True), ("rw,ro", True), ("rw,rw", False), ("rw,errors=remount-ro", False)],
)
def test_a_mount_is_read_only_if_it_or_its_file_system_is(options: str, read_only: bool) -> None:
    assert Mounted("/x", options, "tmpfs").read_only is read_only


# ------------------------------------------------------------------------------------------------ devices, processes


@in_own_namespace
def test_every_node_below_a_folder_is_told_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    for name, device in (("null", "null"), ("net/other", "zero")):
        (tmp_path / name).touch()
        mount(f"/dev/{device}", str(tmp_path / name), None, None, BIND)
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    found = sorted((d.path, d.block, d.major, d.minor) for d in facts.devices(str(tmp_path)))
    assert found == [(f"{tmp_path}/net/other", False, 1, 5), (f"{tmp_path}/null", False, 1, 3)]


@in_own_namespace
def test_the_number_of_devices_that_are_told_is_bounded(tmp_path: Path) -> None:
    facts.MAX_DEVICES = 3
    for number in range(5):
        (tmp_path / str(number)).touch()
        mount("/dev/null", str(tmp_path / str(number)), None, None, BIND)
    assert len(facts.devices(str(tmp_path))) == 3


def test_the_hard_limits_of_a_process_are_those_that_it_has() -> None:
    program = (
        "import resource, sys\n"
        "for name, hard in (('CORE', 0), ('NOFILE', 77), ('DATA', 1 << 30)):\n"
        "    resource.setrlimit(getattr(resource, f'RLIMIT_{name}'), (0, hard))\n"
        "print(flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with ExitStack() as stack:
        stack.enter_context(child)
        stack.callback(child.kill)
        assert child.stdout
        child.stdout.readline()
        hard = {limit.name: limit.hard for limit in facts.limits_of(child.pid)}
    assert (hard["Max core file size"], hard["Max open files"], hard["Max data size"]) == (0, 77, 1 << 30)
    cpu = resource.getrlimit(resource.RLIMIT_CPU)[1]
    assert hard["Max cpu time"] == (NO_LIMIT if cpu == resource.RLIM_INFINITY else cpu)
    assert list(facts.limits_of(child.pid)) == []  # it has ended


@in_own_namespace
def test_every_process_is_told_with_its_rights() -> None:
    child = os.fork()
    if child == 0:
        Path("/proc/self/oom_score_adj").write_text("777")
        os.kill(os.getpid(), 19)  # SIGSTOP
    os.waitpid(child, os.WUNTRACED)
    found = {process.pid: process for process in facts.processes()}
    assert set(found) == {1, child}
    assert found[child].oom_score_adj == 777
    assert found[1].capabilities  # all of this namespace's
    assert not found[1].no_new_privileges
    os.kill(child, 9)


# -------------------------------------------------------------------------------------------- control group, users


def control_group(root: Path, files: dict[str, str]) -> pb.CgroupLimits:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return facts.cgroup_limits(root)


@pytest.mark.parametrize(
    ("texts", "limits"),
    [
        (("1048576", "0", "128", "50000 100000"), (1 << 20, 0, 128, 0.5)),
        (("max", "max", "max", "max 100000"), (NO_LIMIT, NO_LIMIT, NO_LIMIT, float("inf"))),
    ],
)
def test_the_limits_of_version_2_are_read(tmp_path: Path, texts: tuple[str, ...], limits: tuple[float, ...]) -> None:
    names = "memory.max", "memory.swap.max", "pids.max", "cpu.max"
    found = control_group(tmp_path, dict(zip(names, texts, strict=True)))
    assert (found.memory, found.swap, found.pids, found.cpus) == limits


@pytest.mark.parametrize("cpu", ["cpu", "cpu,cpuacct"])
def test_the_limits_of_version_1_are_read(tmp_path: Path, cpu: str) -> None:
    files = {
        "memory/memory.limit_in_bytes": "1048576",
        "memory/memory.memsw.limit_in_bytes": "1572864",
        "pids/pids.max": "max",
        f"{cpu}/cpu.cfs_quota_us": "150000",
        f"{cpu}/cpu.cfs_period_us": "100000",
    }
    found = control_group(tmp_path, files)
    assert (found.memory, found.swap, found.pids, found.cpus) == (1 << 20, 1 << 19, NO_LIMIT, 1.5)
    (tmp_path / cpu / "cpu.cfs_quota_us").write_text("-1\n")
    assert facts.cgroup_limits(tmp_path).cpus == float("inf")


def test_what_cannot_be_seen_is_not_told(tmp_path: Path) -> None:
    found = facts.cgroup_limits(tmp_path)
    assert [found.HasField(name) for name in ("memory", "swap", "pids", "cpus")] == [False] * 4
    found = control_group(tmp_path, {"memory/memory.limit_in_bytes": "5"})  # a kernel that does not count swap
    assert (found.memory, found.HasField("swap")) == (5, False)


@in_own_namespace
def test_a_user_namespace_is_told_from_the_machines_own() -> None:
    assert facts.has_own_user_ids()


def test_what_no_security_module_holds_has_no_label() -> None:
    label = facts.security_label()
    assert label.isprintable()
    assert label == label.strip()
