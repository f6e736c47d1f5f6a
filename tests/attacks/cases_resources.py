"""Section 3.4: using things up, and not ending.

Payloads are bounded: above what a sandbox of these tests may have (see target.py), below what harms the machine that
the control runs on. Most need no import that the policy would refuse.
"""

from __future__ import annotations

from tests.attacks.case import HEARD_THERE, IGNORED_THERE, Case, Control, Layer, case, hangs, no_control
from tests.attacks.native import SYSCALL
from tests.attacks.preludes import MODULE, OS, STEAL, THREADING
from tests.endings import DIED, ERROR, FLOODED, HEARD, KILLED, OK, OUT_OF_MEMORY

GROW = "blocks, n = [], 0\nwhile n < 400: blocks.append(bytearray(b'x') * 10**6); n += 1\nblocks = None\n{R}"
SHARED = "import mmap, numpy\nblock = mmap.mmap(-1, 400 << 20)\nnumpy.frombuffer(block, dtype='u1')[:] = 1\n{R}"
THREADS = (
    THREADING
    + """
go = threading.Event()
try:
    for _ in range(300): threading.Thread(target=go.wait, daemon=True).start()
    print({R})
finally: go.set()
"""
)
FORKS = (
    OS
    + """
made = []
try:
    for _ in range(300):
        pid = os.fork()
        if not pid:
            os.read(os.pipe()[0], 1)
            os._exit(0)
        made.append(pid)
    print({R})
finally:
    for pid in made: os.kill(pid, 9); os.waitpid(pid, 0)
"""
)
FILL = """
import random
try:
    with open('{path}', 'wb') as f:
        for _ in range({megabytes}): f.write(bytes(1 << 20))
    print({R})
finally: random._os.remove('{path}')
"""
MANY_FILES = "for i in range(5000): open(f'{i}', 'w').close()\n{R}"
SPARSE = "with open('sparse', 'wb') as f: f.truncate(1 << 40)\n{R}"
PIPES = (
    OS
    + """
fds = []
try:
    for _ in range(600): fds += os.pipe()
    print({R})
finally:
    for fd in fds: os.close(fd)
"""
)
RECORD_LOCK = (
    OS
    + """
import fcntl
file = open('locked', 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
if not os.fork():
    try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError: os._exit(1)  # it is in the way
    os._exit(0)
print({R} if os.wait()[1] else 'not taken')
"""
)
EPOLLS = (
    MODULE.replace("{0}", "select")
    + "polls = []\ntry:\n    for _ in range(600): polls.append(select.epoll())\n    print({R})\n"
    "finally:\n    for poll in polls: poll.close()"
)
INOTIFY = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
fds = [libc.inotify_init1(0) for _ in range(600)]
print({R} if min(fds) >= 0 else errno.errorcode[ctypes.get_errno()])
for fd in fds:
    if fd >= 0: os.close(fd)
"""
BOMB = """
import zlib
made = zlib.compressobj(1)
bomb = b''.join(made.compress(bytes(10 << 20)) for _ in range(40)) + made.flush()
got = zlib.decompressobj().decompress(bomb)
{R}
"""
TIMERS = (
    MODULE.replace("{0}", "signal")
    + "heard = signal.signal(signal.SIGALRM, lambda *a: None)\nsignal.setitimer(signal.ITIMER_REAL, 1e-5, 1e-5)\n"
    "n = sum(1 for _ in range(20_000))\nn"
)
LIVES_ON = "nothing is reached: what is shown is that the step is told truly and that everybody else lives on"


def _memory() -> list[Case]:
    return [
        case(
            "RES-01",
            "600 MB are had in one piece",
            "x = bytearray(600 << 20)\n{R}",
            held_by=Layer.RUNNER,
            says="MemoryError",
        ),
        case(
            "RES-01b",
            "600 MB are had as text",
            "x = 'a' * (600 << 20)\n{R}",
            held_by=Layer.RUNNER,
            says="MemoryError",
            control=no_control("as RES-01; the machine is spared 600 MB that are really written to"),
        ),
        case(
            "RES-01c",
            "600 MB are had by native code",
            f"{SYSCALL}got = call(9, 0, 600 << 20, 3, 0x22, -1, 0)\nprint(got, {{R}} if isinstance(got, int) else '')",
            held_by=Layer.RUNNER,
            native=True,
            denied=True,
            says="ENOMEM",
        ),
        case("RES-02", "400 MB are had in small pieces", GROW, held_by=Layer.RUNNER, says="MemoryError"),
        case(
            "RES-02b",
            "400 MB are had as shared memory, which no limit of the process counts",
            SHARED,
            held_by=Layer.CONTAINER,
            denied=True,
            endings=(OUT_OF_MEMORY,),
        ),
        case(
            "RES-20",
            "a small file unpacks to 400 MB",
            BOMB,
            held_by=Layer.RUNNER,
            denied=True,
            says="MemoryError",
        ),
    ]


def _processes() -> list[Case]:
    return [
        case("RES-04", "300 threads are had", THREADS, held_by=Layer.CONTAINER, says="RuntimeError"),
        case("RES-04b", "300 processes are had", FORKS, held_by=Layer.CONTAINER, says="BlockingIOError"),
        case("RES-07", "1200 files are open at once", PIPES, held_by=Layer.RUNNER, says="Too many open files"),
        case("RES-07b", "600 epolls are open at once", EPOLLS, held_by=Layer.RUNNER, says="Too many open files"),
        case(
            "RES-07d",
            "locks on parts of a file, whose memory the kernel counts for nobody, are had",
            RECORD_LOCK,
            held_by=Layer.RUNNER,
            denied=True,
            says="not taken",
        ),
        case(
            "RES-07c",
            "600 inotifies are open at once",
            INOTIFY,
            held_by=Layer.RUNNER,
            native=True,
            denied=True,
            says="EMFILE|EPERM",
            control=no_control("how many one user may have is a setting of the machine, often fewer than that"),
        ),
    ]


def _disk() -> list[Case]:
    full = "No space left|File too large"
    return [
        case("RES-05", "64 MB are written to the workspace", _fill("big", 64), held_by=Layer.CONTAINER, says=full),
        case("RES-05b", "5000 files are made", MANY_FILES, held_by=Layer.CONTAINER, says="No space left"),
        case("RES-05c", "a sparse file of a terabyte is made", SPARSE, held_by=Layer.RUNNER, says="File too large"),
        case("RES-05d", "64 MB are written to /tmp", _fill("/tmp/big", 64), held_by=Layer.CONTAINER, says=full),
        case(
            "RES-05e",
            "200 MB are written to the place of the branches",
            "import random\nrandom._os.makedirs('/branches', exist_ok=True)\n" + _fill("/branches/big", 200),
            held_by=Layer.CONTAINER,
            says=full,
        ),
    ]


def _fill(path: str, megabytes: int) -> str:
    return FILL.replace("{path}", path).replace("{megabytes}", str(megabytes))


def _floods() -> list[Case]:
    """The sandboxes of these tests keep 64 KiB of output, and end at 4 MiB."""
    flood = "for _ in range(2000): {write}('A' * 10**4{end})\nprint({R})"

    def writes(write: str, end: str = "") -> str:
        return flood.replace("{write}", write).replace("{end}", end)

    return [
        case("RES-08", "20 MB are printed", writes("print"), held_by=Layer.SUPERVISOR, endings=(FLOODED,)),
        case(
            "RES-08b",
            "20 MB are written to stderr without an end of line",
            "import random\nwrite = random._os.sys.stderr.write\n" + writes("write"),
            held_by=Layer.SUPERVISOR,
            endings=(FLOODED,),
        ),
        case(
            "RES-08c",
            "20 MB are written below Python",
            f"{OS}def write(text): os.write(1, text.encode())\n" + writes("write"),
            held_by=Layer.SUPERVISOR,
            endings=(FLOODED,),
        ),
        hangs(
            "RES-08d",
            "single characters are printed for ever",
            "while True: print('x', end='')",
            endings=(HEARD, KILLED, FLOODED),
            control=HEARD_THERE,
        ),
        case(
            "RES-23",
            "the channel to the supervisor is flooded with what is no frame",
            f"{STEAL}os = statistics.sys.modules['os']\nwhile True: os.write(channel.fileno(), bytes(10**6))",
            held_by=Layer.SUPERVISOR,
            endings=(DIED,),
            says="frame|killed",
            control=no_control("only a sandbox has the channel"),
        ),
        case(
            "RES-23b",
            "the channel to the supervisor is flooded with frames that it did not ask for",
            f"{STEAL}while True: channel.send(43, bytes(8))",
            held_by=Layer.SUPERVISOR,
            endings=(DIED,),
            says="frame|killed",
            control=no_control("only a sandbox has the channel"),
        ),
        case(
            "RES-23c",
            "the channel to the supervisor is promised a frame of four gigabytes",
            f"{STEAL}channel._sock.sendall(b'\\xff\\xff\\xff\\xff\\x24' + bytes(10**6))\nwhile True: pass",
            held_by=Layer.SUPERVISOR,
            endings=(DIED,),
            says="frame|killed",
            control=no_control("only a sandbox has the channel"),
        ),
    ]


def _endless() -> list[Case]:
    """``IGNORED_THERE``: C code that looks for no signal, or code that will not hear it."""
    deaf = {
        "RES-10": ("a search of endless numbers", "import itertools; 0 in itertools.count(1)"),
        "RES-11": ("an endless deque", "import collections, itertools\ncollections.deque(itertools.count(), maxlen=0)"),
        "RES-11b": ("a sum of a trillion numbers", "sum(range(10**12))"),
        "RES-11c": ("the largest of endless numbers", "import itertools; max(itertools.count())"),
        "RES-13": (
            "a loop that ignores the interrupt",
            MODULE.replace("{0}", "signal") + "signal.signal(2, signal.SIG_IGN)\nwhile True: pass",
        ),
        "RES-13b": (
            "a loop that catches everything",
            "while True:\n    try:\n        while True: pass\n    except BaseException: continue",
        ),
        "RES-17": (
            "a finally that sleeps",
            "import time\ntry: time.sleep(99)\nfinally:\n    try: time.sleep(99)\n    finally: time.sleep(99)",
        ),
        "RES-17b": (
            "a context whose end never ends",
            "class A:\n    __enter__ = lambda s: None\n    def __exit__(s, *a):\n"
            "        while True: sum(range(10**12))\n"
            "with A():\n    while True: pass",
        ),
        "RES-17c": ("a finalizer that never ends", "class A:\n    def __del__(s): sum(range(10**12))\nA(); None"),
    }
    patient = {
        "RES-13c": (
            "a thread that is never switched away from",
            "import random\nrandom._os.sys.setswitchinterval(1e9)\nwhile True: pass",
        ),
        "RES-16": ("a sleep of ten days", "import time; time.sleep(10**6)"),
        "RES-16b": ("an event that never comes", f"{THREADING}threading.Event().wait()"),
        "RES-16c": ("a queue that stays empty", "import queue; queue.Queue().get()"),
        "RES-16d": ("a lock that is held", f"{THREADING}lock = threading.Lock(); lock.acquire(); lock.acquire()"),
        "RES-16e": ("a poll of nothing", MODULE.replace("{0}", "select") + "select.poll().poll()"),
    }
    return [
        *(
            hangs(id, f"{what} outlives its deadline", code, endings=(KILLED,), control=IGNORED_THERE)
            for id, (what, code) in deaf.items()
        ),
        *(
            hangs(id, f"{what} outlives its deadline", code, endings=(HEARD,), control=HEARD_THERE)
            for id, (what, code) in patient.items()
        ),
        hangs(
            "RES-22",
            "sixteen busy threads take a neighbour's time",
            f"{THREADING}def spin():\n    while True: pass\n"
            "for _ in range(16): threading.Thread(target=spin, daemon=True).start()\nspin()",
            endings=(HEARD, KILLED),
            control=HEARD_THERE,
        ),
    ]


def _crashes() -> list[Case]:
    segfault = Control(ending="signal 11")
    stack = "i = iter([1])\nfor _ in range(300_000): i = map(int, i)\nlist(i)"
    return [
        case(
            "RES-14",
            "a stack that is used up ends more than its step",
            stack,
            held_by=Layer.SUPERVISOR,
            endings=(DIED,),
            says="signal 11",
            control=segfault,
        ),
        case(
            "RES-14b",
            "a wild write of numpy's ends more than its step",
            "import numpy\nfar = numpy.lib.stride_tricks.as_strided(numpy.zeros(1), (1 << 44,), (8,))\n"
            "far[1 << 43] = 1",
            held_by=Layer.SUPERVISOR,
            endings=(DIED,),
            says="signal 11",
            control=segfault,
        ),
        case(
            "RES-14c",
            "a signal to itself ends more than its step",
            f"{OS}os.kill(os.getpid(), 11)",
            held_by=Layer.SUPERVISOR,
            endings=(DIED,),
            says="signal 11",
            control=segfault,
        ),
        case(
            "RES-14d",
            "a recursion without an end ends more than its step",
            "def f(): return f()\nf()",
            held_by=Layer.RUNNER,
            endings=(ERROR,),
            says="RecursionError",
            control=no_control(LIVES_ON),
        ),
        case(
            "RES-25",
            "a timer's signal ends more than its step",
            MODULE.replace("{0}", "signal") + "signal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True: pass",
            held_by=Layer.SUPERVISOR,
            endings=(DIED,),
            says="signal 14",
            control=Control(ending="signal 14"),
        ),
        case(
            "RES-25b",
            "a storm of timers goes on in the next step",
            TIMERS,
            held_by=Layer.RUNNER,
            endings=(OK,),
            says="20000",
            control=no_control(LIVES_ON),
        ),
    ]


CASES = [*_memory(), *_processes(), *_disk(), *_floods(), *_endless(), *_crashes()]
