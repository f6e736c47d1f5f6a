"""What is in force inside a started sandbox, read there by user code and by the supervisor, and asked of the engine."""

from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator import Config, Limits, Sandbox, Status
from orchestrator.sandbox.engine import engine
from tests.conftest import mine

pytestmark = pytest.mark.docker

# Reads with the runner's own eyes; every import is allowed here, so it is the kernel that says no.
LOOK = """
import os, socket
def status(pid):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}
processes = {int(p): status(p) for p in os.listdir("/proc") if p.isdigit()}
me = os.getpid()
"""


def attempt(code: str) -> str:
    """Code that gives the name of the error that ``code`` raises, or what it gave."""
    indented = "\n".join(f"    {line}" for line in code.splitlines())
    return (
        f"try:\n{indented}\n    got = 'done'\n"
        "except Exception as error: got = f'{type(error).__name__} {error}'\ngot"
    )


@pytest.fixture(scope="module")
def sandbox(unconfined: Config) -> Iterator[Sandbox]:
    """Without Landlock: what holds here holds by the other layers, and user code can look."""
    limits = Limits(memory="256m", pids=64, disk="8m")
    with Sandbox(authorized_imports=["*"], limits=limits, config=unconfined) as sandbox:
        assert sandbox.run_code(LOOK).ok
        yield sandbox


@pytest.fixture(scope="module")
def inspected(sandbox: Sandbox, config: Config) -> dict[str, Any]:
    (container,) = mine(config)
    found: dict[str, Any] = engine(config).inspect_container(container.id)
    return found


def test_every_layer_is_in_force(sandbox: Sandbox) -> None:
    isolation = sandbox.isolation()
    assert isolation.complete
    assert {layer.name for layer in isolation.layers} >= {"no network", "read-only root", "system call filter"}


def test_every_process_has_no_capability_no_new_privileges_and_a_filter(sandbox: Sandbox) -> None:
    for pid, status in sandbox.run_code("processes").value.items():
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == 0, (pid, name)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), pid


def test_supervisor_and_runner_are_different_users_and_neither_is_root(sandbox: Sandbox) -> None:
    uids = {pid: set(status["Uid"].split()) for pid, status in sandbox.run_code("processes").value.items()}
    supervisor = uids.pop(1)
    assert len(supervisor) == 1
    (runner,) = {frozenset(found) for found in uids.values()}
    assert len(runner) == 1
    assert not supervisor & runner
    assert "0" not in supervisor | runner
    assert set(sandbox.run_code("processes[me]['Groups'], processes[1]['Groups']").value) == {""}


def test_two_sandboxes_have_different_users(sandbox: Sandbox) -> None:
    with Sandbox(authorized_imports=["os"]) as other:
        assert other.run_code("import os; os.getuid()").value != sandbox.run_code("os.getuid()").value


def test_there_is_no_interface_but_lo(sandbox: Sandbox) -> None:
    assert sandbox.run_code("[l.split(':')[0].strip() for l in open('/proc/net/dev')][2:]").value == ["lo"]
    assert sandbox.run_code("open('/proc/net/route').read().count(chr(10))").value <= 1


def test_nothing_can_be_connected_to(sandbox: Sandbox) -> None:
    listener = attempt("socket.create_connection(('127.0.0.1', 9), timeout=2)")
    assert sandbox.run_code(listener).value.startswith(("ConnectionRefusedError", "OSError", "PermissionError"))
    assert sandbox.run_code(attempt("socket.getaddrinfo('canary.test', 80)")).value.startswith("gaierror")


@pytest.mark.parametrize(
    "path", ["/x", "/etc/x", "/opt/py/lib/python3.13/json/x.py", "/opt/exec/x", "/run/x", "/dev/x"]
)
def test_nothing_outside_workspace_and_tmp_is_writable(sandbox: Sandbox, path: str) -> None:
    refusal = sandbox.run_code(attempt(f"open({path!r}, 'w')")).value
    assert refusal.startswith(("OSError [Errno 30]", "PermissionError"))


def test_the_workspace_runs_nothing(sandbox: Sandbox) -> None:
    code = (
        "open('run', 'w').write('#!/opt/py/bin/python3\\n')\nos.chmod('run', 0o755)\nos.execv('/workspace/run', ['x'])"
    )
    assert sandbox.run_code(attempt(code)).value.startswith("PermissionError")


def test_the_workspace_is_capped_in_bytes_and_in_files(sandbox: Sandbox) -> None:
    fill = attempt("with open('big', 'wb') as f:\n    while True: f.write(b'x' * 65536)")
    assert sandbox.run_code(fill).value.startswith("OSError [Errno 2")  # 28 no space, 27 file too large
    sandbox.run_code("os.remove('big')")
    many = attempt("for i in range(10_000): open(f'file{i}', 'w').close()")
    assert "No space left" in sandbox.run_code(many).value
    sandbox.run_code("for name in os.listdir('.'): os.remove(name)")


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(1, 9)",
        "os.kill(1, 0)",
        "open('/proc/1/environ').read()",
        "open('/proc/1/mem', 'rb').read(1)",
        "os.listdir('/proc/1/fd')",
        "os.listdir('/run/s')",
        "s = socket.socket(socket.AF_UNIX); s.connect('/run/s/executor.sock')",
        "import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3))",
        "os.sched_setaffinity(1, {0})",
        "os.setpriority(os.PRIO_PROCESS, 1, 19)",
        "os.setuid(0)",
        "os.listdir('/opt/exec')",
        "open('/opt/exec/lib/python3.13/executor_image/supervisor/session.py').read()",
    ],
)
def test_the_supervisor_is_out_of_reach(sandbox: Sandbox, code: str) -> None:
    assert sandbox.run_code(attempt(code)).value.startswith("PermissionError")


@pytest.mark.parametrize("module", ["ctypes", "grpc", "google.protobuf", "executor_image.supervisor", "executor_api"])
def test_no_native_kit_and_none_of_the_supervisors_code_can_be_imported(sandbox: Sandbox, module: str) -> None:
    assert sandbox.run_code(attempt(f"import {module}")).value.startswith("ModuleNotFoundError")


def test_the_token_is_nowhere_to_be_read(sandbox: Sandbox) -> None:
    given = ["GLIBC_TUNABLES", "HOME", "LANG", "MKL_NUM_THREADS", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS"]
    given += ["OPENBLAS_NUM_THREADS", "TMPDIR", "TZ"]
    assert sandbox.run_code("sorted(os.environ)").value == given
    arguments = sandbox.run_code("open('/proc/1/cmdline').read()").value
    assert "token" not in arguments


def test_only_the_runners_own_descriptors_are_open(sandbox: Sandbox) -> None:
    sandbox.run_code(
        "def kind(fd):\n"
        "    try: return os.readlink(f'/proc/self/fd/{fd}').partition(':')[0]\n"
        "    except FileNotFoundError: return 'pipe'  # the listing's own, closed by now\n"
    )
    kinds = sandbox.run_code("sorted({kind(fd) for fd in os.listdir('/proc/self/fd')})").value
    assert set(kinds) <= {"/dev/null", "pipe", "socket", "anon_inode"}


def test_the_engine_was_asked_for_all_of_it(inspected: dict[str, Any]) -> None:
    host = inspected["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["Privileged"] is False
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] == host["MemorySwap"] == 256 << 20
    assert host["PidsLimit"] == 64 + 64  # of user code, and of the processes that hold states
    assert host["NanoCpus"] == 1_000_000_000
    assert host["LogConfig"]["Type"] == "none"
    assert len(inspected["Mounts"]) == 1
    assert not any("docker.sock" in mount["Source"] for mount in inspected["Mounts"])
    assert set(inspected["NetworkSettings"]["Networks"]) <= {"none"}


def test_the_numeric_libraries_work_inside(sandbox: Sandbox) -> None:
    code = """
import numpy as np, pandas as pd
import matplotlib.pyplot as plt
table = pd.DataFrame({"x": np.arange(4.0)})
plt.plot(table["x"]); plt.savefig("plot.png")
float((table["x"] @ table["x"])), open("plot.png", "rb").read(8)
"""
    with Sandbox(authorized_imports=["numpy", "pandas", "matplotlib.*"], timeout=60) as one:
        execution = one.run_code(code)
        assert execution.value == (14.0, b"\x89PNG\r\n\x1a\n"), execution.error
        assert one.run_code("sum(range(10**12))", timeout=0.3).status is Status.TIMEOUT
        assert one.run_code("len(table)").value == 4
