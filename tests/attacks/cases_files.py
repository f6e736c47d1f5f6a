"""Section 3.6: the file system, seen from inside and through the host's own file requests."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress

from orchestrator.errors import SandboxFileError
from tests.attacks.case import WORD, Case, Control, Layer, case, no_control, reads
from tests.attacks.native import SYSCALL, library, program
from tests.attacks.preludes import OS, THREADING
from tests.attacks.target import DEADLINE, Attack
from tests.endings import DIED, ERROR, OK

# Too many: where no message queue may be had, by its limit.
NOT_WRITABLE = "Read-only file system|PermissionError|No such file|Too many open files"
SPAWN = "import os\nos.chmod('./run', 0o755)\nos.waitpid(os.posix_spawn('./run', ['run'], {}), 0)\n"
MADE_BY_HAND = f"made = bytes.fromhex('{program(WORD.encode() + bytes([10])).hex()}')\n"
LIBRARY = f"made = bytes.fromhex('{library('answer', bytes.fromhex('b82a000000c3')).hex()}')\n"  # mov eax, 42; ret
MEMFD = (
    MADE_BY_HAND
    + """
import os
fd = os.memfd_create('x')
os.write(fd, made)
if not (pid := os.fork()):
    try: os.execve(fd, ['x'], {})
    except OSError as error: os.write(2, repr(error).encode())
    os._exit(0)
os.waitpid(pid, 0)
"""
)
# What a thread does goes on while the host asks for files; a process would not outlive its execution.
LEFT_BEHIND = OS + THREADING
# The host asks for a file while it is swapped for a link.
SWAP = (
    LEFT_BEHIND
    + """
open('good', 'w').write('good')
open('report.csv', 'w').write('good')
def swap():
    while True:
        os.symlink('{C}', 'link'); os.rename('link', 'report.csv')
        os.link('good', 'copy'); os.rename('copy', 'report.csv')
threading.Thread(target=swap, daemon=True).start()
"""
)
MOST_GROWN, GROWS_BY = 4 << 20, 1000  # bytes
ODD = (
    LEFT_BEHIND
    + f"""
os.mkfifo('fifo'); os.mkdir('folder'); os.mkfifo('pipe')
for i in range(300): open(f'folder/{{i}}', 'w').close()
growing = open('growing', 'ab', 0)
growing.write(b'x')
def grow():
    while True:
        growing.write(b'x' * {GROWS_BY})
        if growing.tell() >= {MOST_GROWN}: growing.truncate(1)
threading.Thread(target=grow, daemon=True).start()
"""
)
SEES_IT = (
    SWAP
    + """
seen = set()
for _ in range(20_000):
    try: seen.add(open('report.csv').read())
    except OSError: pass
print(seen)
"""
)


def _is_refused(attack: Attack, path: str) -> None:
    """The host, asked for that file, is told that it cannot have it."""
    with suppress(SandboxFileError):
        raise AssertionError(f"{path} was read: {attack.target.sandbox.files.read(path)[:100]!r}")


def link_is_refused(attack: Attack) -> None:
    """Not followed, wherever it points to."""
    _is_refused(attack, "report.csv")


def behind_a_folder_is_refused(attack: Attack) -> None:
    """Nor is one on the way."""
    _is_refused(attack, f"folder/{attack.case.canary}")


def upload_follows_nothing(attack: Attack) -> None:
    """What the host writes replaces no file behind a link, and nothing outside the workspace."""
    for path in ("in", "folder/in", "../in", "/tmp/elsewhere"):
        with suppress(SandboxFileError, ValueError):
            attack.target.sandbox.files.write(path, b"from the host")
            raise AssertionError(f"{path} was written")
    found = attack.target.value("open('/tmp/elsewhere').read()")
    assert found == "as it was", found


def download_is_bounded(attack: Attack) -> None:
    """A list has regular files alone, and each odd thing that is asked for is refused or bounded, in time."""
    files, began = attack.target.sandbox.files, time.monotonic()
    assert {entry.path for entry in files.list()} == {"growing", *(f"folder/{i}" for i in range(300))}
    for odd in ("fifo", "folder", "pipe", "nothing"):
        with suppress(SandboxFileError):
            raise AssertionError(f"{odd} was read: {files.read(odd)[:100]!r}")
    assert 0 < len(files.read("growing")) <= MOST_GROWN + GROWS_BY
    assert time.monotonic() - began < DEADLINE


def swapped_file_is_never_the_canary(attack: Attack) -> None:
    """Whatever it finds at that moment, the file, or a link, which is refused; both are met, again and again."""
    met: Counter[str] = Counter()
    deadline = time.monotonic() + DEADLINE
    while min(met["file"], met["link"]) < 10:
        assert time.monotonic() < deadline, f"nothing was swapped: {met}"
        try:
            assert attack.target.sandbox.files.read("report.csv") == b"good"
            met["file"] += 1
        except SandboxFileError:
            met["link"] += 1


def _writes() -> list[Case]:
    places = ["/usr/x", "/etc/passwd", "/opt/py/lib/python3.13/json/__init__.py", "/opt/exec/x", "/x"]
    places += ["/dev/shm/x", "/dev/mqueue/x", "/dev/x", "/run/x", "/run/s/x", "/proc/sys/kernel/hostname", "/sys/x"]
    ids = ["FS-01", "FS-01b", "FS-01c", "FS-01d", "FS-01e"] + [f"FS-13{letter}" for letter in ("", *"bcdefg")]
    writable_there = {
        "/dev/mqueue/x": "no such queue can be made there by open()",
        "/run/x": "the folder is in a sandbox alone",
        "/run/s/x": "the folder is in a sandbox alone",
        "/sys/x": "nobody can make a file there",
        "/dev/shm/x": "the unguarded container has no shared memory either",
    }
    return [
        case(
            id,
            f"{place} is written",
            f"with open('{place}', 'a'): pass\n{{R}}",
            held_by=Layer.CONTAINER,
            endings=(ERROR,),
            says=NOT_WRITABLE,
            control=no_control(writable_there[place]) if place in writable_there else Control(),
        )
        for id, place in zip(ids, places, strict=True)
    ]


def _native_writes() -> list[Case]:
    create, append = 0o101, 0o2001  # O_CREAT | O_WRONLY, O_APPEND | O_WRONLY
    places = {"/usr/x": create, "/x": create, "/dev/x": create, "/opt/exec/x": create, "/etc/passwd": append}
    return [
        case(
            f"FS-01{letter}",
            f"{place} is written by native code",
            f"{SYSCALL}got = call(2, b'{place}', {flags}, 0o600)\nprint(got, {{R}} if isinstance(got, int) else '')",
            held_by=Layer.CONTAINER,
            native=True,
            denied=True,
            says="EROFS|EACCES|EPERM",
        )
        for letter, (place, flags) in zip("fghij", places.items(), strict=True)
    ]


def _reads() -> list[Case]:
    exec_ = "/opt/exec/lib/python3.13/executor_image/supervisor/session.py"
    return [
        *reads("FS-02", "a plain open reads", "open('{C}').read()"),
        *reads(
            "FS-02b",
            "native code reads",
            SYSCALL + "text = ctypes.create_string_buffer(99)\nfd = call(2, b'{C}', 0)\n"
            "print(fd if isinstance(fd, str) else call(0, fd, text, 99))\ntext.value",
            native=True,
            denied=True,
            says="EACCES",
        ),
        *reads(
            "FS-02c",
            "a hard link into the workspace reads",
            "import random\nrandom._os.link('{C}', 'mine')\nopen('mine').read()",
            open_held_by=Layer.CONTAINER,
            says="PermissionError|cross-device",
            control=Control(
                steps=(
                    "import os\nos.link('{C}', '/canary/mine')\nprint(open('/canary/mine').read())\n"
                    "os.remove('/canary/mine')",
                ),
                reason="there the link is made in the canary's own file system",
            ),
        ),
        case(
            "FS-02d",
            "the supervisor's code is read",
            f"print({{R}} if 'supervisor' in open('{exec_}').read() else '')",
            held_by=Layer.USERS,
            says="PermissionError",
        ),
        case(
            "FS-02e",
            "the accounts are read",
            "print({R} if 'root' in open('/etc/passwd').read() else '')",
            held_by=Layer.LANDLOCK,
            says="PermissionError",
            note="without Landlock: the image's own file, of root and nobody",
        ),
        case(
            "FS-02f",
            "the root folder is listed",
            "import random\nprint({R} if 'opt' in random._os.listdir('/') else '')",
            held_by=Layer.LANDLOCK,
            says="PermissionError",
        ),
        case(
            "FS-04",
            "its own memory is opened as a file",
            "open('/proc/self/mem', 'r+b').close()\n{R}",
            held_by=Layer.USERS,
            says="PermissionError",
            note="a program that may be run and not read makes its process nobody's to inspect",
        ),
        case(
            "FS-04b",
            "its own output is opened again for reading",
            "import random\nrandom._os.open('/proc/self/fd/1', 2)\n{R}",
            held_by=Layer.USERS,
            says="PermissionError",
        ),
    ]


def _runs() -> list[Case]:
    script = "open('run', 'w').write('#!/opt/py/bin/python3\\nprint(\"REA\" + \"CHED\")\\n')\n"
    return [
        case(
            "FS-05",
            "a script in the workspace is run",
            script + SPAWN,
            held_by=Layer.CONTAINER,
            denied=True,
            says="PermissionError",
        ),
        case(
            "FS-05b",
            "a program in the workspace is run",
            MADE_BY_HAND + "open('run', 'wb').write(made)\n" + SPAWN,
            held_by=Layer.CONTAINER,
            denied=True,
            says="PermissionError",
        ),
        case(
            "FS-05c",
            "a program in the temporary folder is run",
            MADE_BY_HAND + "import os\nos.chdir('/tmp')\nopen('run', 'wb').write(made)\n" + SPAWN,
            held_by=Layer.CONTAINER,
            denied=True,
            says="PermissionError",
        ),
        case(
            "FS-05d",
            "a program in memory alone is run",
            MEMFD,
            held_by=Layer.CONTAINER,
            denied=True,
            says="PermissionError|Errno",
        ),
        case(
            "FS-05e",
            "a library in the workspace is loaded",
            LIBRARY + "import ctypes\nopen('lib.so', 'wb').write(made)\n"
            "print({R} if ctypes.CDLL('./lib.so').answer() == 42 else '')",
            held_by=Layer.CONTAINER,
            native=True,
            denied=True,
            says="failed to map segment|Operation not permitted",
        ),
        case(
            "FS-05f",
            "a file in the workspace is mapped as code",
            "import mmap\nopen('code', 'wb').write(bytes(4096))\n"
            "file = open('code', 'rb')\nmmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)\n{R}",
            held_by=Layer.CONTAINER,
            denied=True,
            says="PermissionError",
        ),
    ]


def _host_requests() -> list[Case]:
    """The host is asked for files while the code does its worst."""
    naive = "import os\nos.symlink('{C}', 'report.csv')\nprint(open('report.csv').read())"
    links = (
        "import random\nos = random._os\nopen('/tmp/elsewhere', 'w').write('as it was')\n"
        "os.symlink('/tmp/elsewhere', 'in'); os.mkdir('/tmp/outside'); os.symlink('/tmp/outside', 'folder')\n"
        "os.listdir('/tmp/outside')"
    )
    return [
        *reads(
            "FS-07",
            "a link that the host is asked for shows",
            "import random\nrandom._os.symlink('{C}', 'report.csv')",
            open_held_by=Layer.RUNNER,
            endings=(OK,),
            says="",
            check=link_is_refused,
            control=Control(steps=(naive,), reason="there the file is opened as anybody would"),
        ),
        *reads(
            "FS-07b",
            "a link on the way to what the host is asked for shows",
            "import random\nrandom._os.symlink('{C}'.rpartition('/')[0], 'folder')",
            open_held_by=Layer.RUNNER,
            endings=(OK,),
            says="",
            check=behind_a_folder_is_refused,
            control=Control(
                steps=(
                    "import os\nos.symlink('/canary', 'folder')\n"
                    "print(open('folder/' + os.path.basename('{C}')).read())",
                ),
                reason="there the file is opened as anybody would",
            ),
        ),
        *reads(
            "FS-08",
            "a file that is swapped for a link while the host reads it shows",
            SWAP,
            open_held_by=Layer.RUNNER,
            endings=(OK,),
            says="",
            check=swapped_file_is_never_the_canary,
            control=Control(steps=(SEES_IT,), reason="there the file is opened as anybody would"),
        ),
        case(
            "FS-10",
            "the host waits for, or takes in without end, odd files that it is asked for",
            ODD,
            held_by=Layer.HOST,
            endings=(OK,),
            check=download_is_bounded,
            control=no_control("it is the host's own request that is looked at"),
        ),
        case(
            "FS-11",
            "what the host writes goes through a link",
            links,
            held_by=Layer.RUNNER,
            endings=(OK,),
            check=upload_follows_nothing,
            control=Control(
                steps=(
                    links.replace("import random\nos = random._os", "import os"),
                    "open('in', 'w').write('new')\nprint({R} if open('/tmp/elsewhere').read() == 'new' else '')",
                ),
                reason="there the file is written as anybody would",
            ),
        ),
    ]


def _mounts() -> list[Case]:
    calls = {
        "FS-14": ("mount", "165, 0, 0, 0, 0, 0"),
        "FS-14b": ("umount2", "166, 0, 0"),
        "FS-14c": ("pivot_root", "155, 0, 0"),
        "FS-14d": ("chroot", "161, 0"),
    }
    return [
        case(
            id,
            f"{name} gets past the filter",
            f"{SYSCALL}tell(call({arguments}))",
            held_by=Layer.CONTAINER,
            native=True,
            denied=True,
            endings=(OK, DIED),
            says="EPERM|ENOSYS|signal 31",
        )
        for id, (name, arguments) in calls.items()
    ]


CASES = [*_writes(), *_native_writes(), *_reads(), *_runs(), *_host_requests(), *_mounts()]
