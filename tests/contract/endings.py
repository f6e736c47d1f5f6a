"""The ways in which an execution can end, as data for test_endings_contract.py: what is run, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.endings import DIED, DIED_LOST, ERROR, HEARD, KILLED, OK, OUT_OF_MEMORY, TIMEOUT_LOST, Ending

HANG = 0.3  # seconds for code that does not end
AMPLE = 10.0  # seconds for code that ends by itself, also on a busy machine


@dataclass(frozen=True)
class Case:
    """One way to end. ``endings`` has more than one entry only where more than one is right."""

    id: str
    code: str
    endings: frozenset[Ending]
    timeout: float
    error: str = ""  # name of the exception, where the status is ERROR
    reason: str = ""  # part of the error's text
    keeps: dict[str, Any] = field(default_factory=dict)  # expression -> its value afterwards, where the state was kept
    spoils: bool = False  # what it leaves behind is in the way of other cases


def ends(id: str, code: str, *endings: Ending, **more: Any) -> Case:
    return Case(id, code, frozenset(endings), AMPLE, **more)


def hangs(id: str, code: str, *endings: Ending, **more: Any) -> Case:
    return Case(id, code, frozenset(endings), HANG, **more)


# Time. What hears the interrupt is in CPython's sources: the loop of the interpreter, and PyErr_CheckSignals in some C.

TIME = [
    hangs("python-loop", "n = 0\nwhile True: n += 1", HEARD, keeps={"n > 0": True}),
    hangs("sleep", "import time; time.sleep(1e9)", HEARD),
    hangs("await", "import asyncio\nawait asyncio.sleep(1e9)", HEARD),
    hangs(
        "interrupt-caught",
        "caught = 0\ntry:\n    while True: pass\nexcept KeyboardInterrupt: caught += 1",
        HEARD,
        keeps={"caught": 1},
    ),
    hangs(
        "interrupt-ignored", "while True:\n    try:\n        while True: pass\n    except BaseException: pass", KILLED
    ),
    hangs("teardown-hangs", "try:\n    while True: pass\nfinally: sum(range(10**12))", KILLED),
    hangs("signal-ignored", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", KILLED),
    hangs("stopped", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", KILLED),
    hangs("sum", "sum(range(10**12))", KILLED),
    hangs("count", "import itertools; 0 in itertools.count(1)", KILLED),
    hangs("deque", "import collections, itertools; collections.deque(itertools.repeat(0), maxlen=0)", KILLED),
    hangs("regex", "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')", HEARD),
    hangs("power-tower", "10**10**8", HEARD),
    hangs("power", "pow(3, 10**8)", HEARD),
    hangs("power-modulo", "pow(7, (1 << 4_000_000) - 1, (1 << 4_000_000) - 3)", HEARD),
    hangs("numpy-loop", "import numpy\na = numpy.eye(300)\nwhile True: a = a @ a", HEARD),
    hangs("numpy-sum", "import numpy; numpy.broadcast_to(numpy.float64(1), 10**12).sum()", KILLED),
    hangs("numpy-count", "import numpy; numpy.count_nonzero(numpy.broadcast_to(numpy.float64(1), 10**12))", KILLED),
    # Python's algorithm in C steps of any length: the interrupt is heard between them, within the grace or after it.
    hangs("text-to-int", "import sys; sys.set_int_max_str_digits(0); int('9' * 10**7)", HEARD, KILLED, spoils=True),
    hangs("int-to-text", "import sys; sys.set_int_max_str_digits(0); str(1 << 10**7)", HEARD, KILLED, spoils=True),
    ends("int-to-text-too-long", "str(10**5000)", ERROR, error="ValueError", reason="4300 digits"),
    hangs("sort-key", "def key(x):\n    while True: pass\nbasket.sort(key=key)", HEARD),
    hangs(
        "sort-order", "class Odd:\n    def __lt__(self, other): return sum(range(10**12))\nmin(Odd(), Odd())", KILLED
    ),
    hangs("repr", "class Odd:\n    def __repr__(self):\n        while True: pass\nOdd()", HEARD),
]

# The process goes away, or the code tries to make it.

FAR = (
    "import numpy\nfrom numpy.lib.stride_tricks import as_strided\nfar = as_strided(numpy.zeros(1), (1 << 44,), (8,))\n"
)
BYTECODE = """
import dis
wide, load = dis.opmap['EXTENDED_ARG'], dis.opmap['LOAD_CONST']
code = bytes([wide, 0x7f, wide, 0xff, wide, 0xff, load, 0xff, dis.opmap['RETURN_VALUE'], 0])
exec((lambda: None).__code__.replace(co_code=code, co_consts=()))
"""
ENDLESS = "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()"
EXEC = "import os, sys; os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', "
SEGFAULT = "killed by signal 11"

PROCESS = [
    ends("exit-0", "import os; os._exit(0)", DIED, reason="exited with code 0"),
    ends("exit-3", "import os; os._exit(3)", DIED, reason="exited with code 3"),
    # Another program has no channel to be watched by: it is killed, unless it has ended before that.
    ends("exec", f"{EXEC}'raise SystemExit(7)'])", DIED),
    ends("exec-and-hang", f"{EXEC}'while True: pass'])", DIED, reason="closed its channel"),
    ends("close-all", "import os; os.closerange(0, 256)", DIED),
    ends("abort", "import os; os.abort()", DIED, reason="killed by signal 6"),
    ends("segfault-write", f"{FAR}far[1 << 43] = 1", DIED, reason=SEGFAULT),
    ends("segfault-read", f"{FAR}float(far[1 << 43])", DIED, reason=SEGFAULT),
    ends("segfault-bytecode", BYTECODE, DIED, reason=SEGFAULT),
    ends("segfault-signal", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", DIED, reason=SEGFAULT),
    ends("stack", "i = iter([1])\nfor _ in range(300_000): i = map(int, i)\nlist(i)", DIED, reason=SEGFAULT),
    ends("recursion", "def f(): return f()\nf()", ERROR, error="RecursionError"),
    # Each call takes memory of the heap: the time or the memory is used up first, and unwinding may outlast the grace.
    hangs("recursion-without-limit", ENDLESS, HEARD, KILLED, ERROR, error="MemoryError", spoils=True),
    ends(
        "alarm", "import signal; signal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True: pass", DIED, reason="signal 14"
    ),
    ends("sys-exit-0", "import sys; sys.exit(0)", ERROR, error="SystemExit"),
    ends("sys-exit-1", "import sys; sys.exit(1)", ERROR, error="SystemExit"),
    ends("raise-system-exit", "raise SystemExit", ERROR, error="SystemExit"),
    ends("raise-generator-exit", "raise GeneratorExit", ERROR, error="GeneratorExit"),
    ends("raise-keyboard-interrupt", "raise KeyboardInterrupt", ERROR, error="KeyboardInterrupt"),
    ends("quit", "quit()", ERROR, error="NameError"),  # it is of the site module, which is for interactive use
    ends("kill-parent", "import os; os.kill(os.getppid(), 9)", ERROR, error="PermissionError"),
    ends("kill-first", "import os; os.kill(1, 9)", ERROR, error="PermissionError"),
    ends("kill-group", "import os; os.kill(0, 9)", DIED),
    ends("killpg", "import os; os.killpg(os.getpgrp(), 9)", DIED),
    ends("kill-all-and-exit", "import os; os.kill(-1, 9); os._exit(3)", DIED_LOST),
    hangs("kill-all-and-hang", "import os; os.kill(-1, 9)\nwhile True: pass", HEARD, TIMEOUT_LOST, DIED_LOST),
    ends("stop-all", "import os, signal; os.kill(-1, signal.SIGSTOP)", OK, spoils=True),
]

# Memory. The sandbox of these tests has 256 MB.

GROW = "def grow():\n    blocks = []\n    while True: blocks.append(bytearray(10**6))\ngrow()"
GROW_NUMPY = "import numpy\ndef grow():\n    arrays = []\n    while True: arrays.append(numpy.ones(10**6))\ngrow()"
KEEP = "blocks = []\nwhile True: blocks.append(bytearray(10**6))"
SHARED = "import mmap, numpy\nnumpy.frombuffer(mmap.mmap(-1, 1 << 30), dtype=numpy.uint8)[:] = 1"
CHILDREN = """
import os, signal
children = {}
for _ in range(8):
    if not (pid := os.fork()):
        block = bytearray(b'x') * (60 << 20)
        signal.pause()
    children[pid] = None
while True:
    pid, first = os.wait()
    if pid in children: break
"""
FAMILY = """
import os, signal
for _ in range(3): os.fork()
block = bytearray(b'x') * (60 << 20)
signal.pause()
"""

MEMORY = [
    ends("one-allocation", "block = bytearray(10**11)", ERROR, error="MemoryError", reason="memory"),
    ends("growing", GROW, ERROR, error="MemoryError"),
    ends("growing-numpy", GROW_NUMPY, ERROR, error="MemoryError"),
    ends("growing-and-kept", KEEP, ERROR, error="MemoryError", keeps={"len(blocks) > 100": True}, spoils=True),
    ends("repeat", "import itertools; list(itertools.repeat(0))", ERROR, error="MemoryError"),
    # Shared memory is not counted as a process's own, so no MemoryError comes first.
    ends("pages-beyond-the-limit", SHARED, OUT_OF_MEMORY, reason="memory limit"),
    ends("children-beyond-the-limit", CHILDREN, OK, keeps={"first": 9}),
    # The kernel takes one of several that are as large as each other: the code's own process, or others until it fits.
    # What is left of them then waits for the interrupt, and hears it within the grace or after it.
    Case("family-beyond-the-limit", FAMILY, frozenset({OUT_OF_MEMORY, HEARD, KILLED}), 2.0),
]

# Processes. ``stray`` and a pid in the value or the output: a process that has to be gone soon.

FORK_BOMB = """
import os, signal
made = 0
for _ in range(200):
    try: pid = os.fork()
    except OSError: continue
    if not pid: signal.pause()
    made += 1
    stray = pid
f'stray {stray}'
"""
CHILD = """
import os, signal
if not (pid := os.fork()): signal.pause()
f'stray {pid}'
"""
DAEMON = """
import os
reader, writer = os.pipe()
if not os.fork():
    os.setsid()
    if os.fork(): os._exit(0)
    os.write(writer, str(os.getpid()).encode())
    WORK
'stray ' + os.read(reader, 20).decode()
"""
WRITE_FILE = "while True: open('log', 'a').write('x')"
PRINT = "for _ in range(2): os.fork()\n    while True: print('x' * 60_000)"
PATRICIDE = """
import os, signal
parent, (reader, writer) = os.getpid(), os.pipe()
if not (pid := os.fork()):
    os.read(reader, 1)
    os.kill(parent, 9)
    signal.pause()
print('stray', pid)
os.write(writer, b'.')
signal.pause()
"""
MASSACRE = "import os, signal\nif not os.fork(): os.kill(-1, 9); signal.pause()\nsignal.pause()"
BOTH_PRINT = """
import os
if not (pid := os.fork()):
    for _ in range(200): print('c' * 60_000)
    os._exit(0)
for _ in range(200): print('p' * 60_000)
ended = os.waitpid(pid, 0)[1]
"""

PROCESSES = [
    ends("fork-bomb", FORK_BOMB, OK, keeps={"made > 5": True}),
    # The interrupt has to get through to one of some forty processes that are all busy.
    hangs(
        "fork-bomb-without-end", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", HEARD, KILLED
    ),
    ends("fork-bomb-and-exit", "import os\nfor _ in range(5): os.fork()\nos._exit(3)", DIED),
    ends("child-left", CHILD, OK),
    ends("daemon-writes-file", DAEMON.replace("WORK", WRITE_FILE), OK),
    ends("daemon-prints", DAEMON.replace("WORK", PRINT), OK),
    ends("daemon-writes-below-python", DAEMON.replace("WORK", "while True: os.write(1, b'x' * 60_000)"), OK),
    ends("child-kills-parent", PATRICIDE, DIED, reason="killed by signal 9"),
    ends("child-kills-all", MASSACRE, DIED_LOST),
    ends("child-returns", "import os\nif pid := os.fork(): ended = os.waitpid(pid, 0)[1]", OK, keeps={"ended": 0}),
    ends("child-raises", "import os\nif not (pid := os.fork()): 1 / 0\nended = os.waitpid(pid, 0)[1]", OK),
    ends("child-goes-on", "import os\nif os.fork(): os._exit(0)\nwhile True: pass", DIED, reason="exited with code 0"),
    ends("child-and-parent-print", BOTH_PRINT, OK, keeps={"ended": 0}),
]

# Threads that end within the execution; what they do in it is the code's own doing.

# Beside a thread that spins, all others wait 5 ms for each of their many turns, unless Python is asked for less.
# Nothing has to be put back: whoever leaves such a thread is killed, and the state before it has its own 5 ms.
SPIN = "import sys, threading\nsys.setswitchinterval(1e-4)\ndef spin():\n    while True: pass\n"
ENDED_THREADS = [
    ends("thread-raises", "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start(); t.join()", OK),
    ends(
        "thread-exits",
        "import os, threading\nthreading.Thread(target=os._exit, args=(3,)).start()\nwhile True: pass",
        DIED,
    ),
    hangs("thread-in-c", "import threading\nthreading.Thread(target=lambda: sum(range(10**12))).start()", KILLED),
]

# Threads that go on after it. A process with threads cannot be copied: a later kill has no newer state to go back to.

LEFT_THREADS = [
    ends("thread", "import threading\nthreading.Thread(target=threading.Event().wait).start()", OK),
    ends("daemon-thread", "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", OK),
    ends("thread-spins", f"{SPIN}threading.Thread(target=spin).start()", OK),
    hangs("thread-joined", f"{SPIN}t = threading.Thread(target=spin); t.start(); t.join()", HEARD),
    ends("thread-prints", f"{SPIN.replace('pass', 'print(0)')}threading.Thread(target=spin).start()", OK),
    ends(
        "thread-bomb",
        "import threading\ngo = threading.Event()\nwhile True: threading.Thread(target=go.wait).start()",
        ERROR,
        error="RuntimeError",
        reason="new thread",
    ),
]
