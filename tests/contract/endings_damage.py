"""Code that damages the interpreter it runs in, as data for test_endings_contract.py.

The rule: whatever it does, status and state are true and the next execution works, because the state was restored or
because it was not damaged.
"""

from __future__ import annotations

from tests.contract.endings import Case, ends, hangs
from tests.endings import DIED, DIED_LOST, ERROR, HEARD, KILLED, OK, OK_LOST

# What runs the code shares its builtins and modules. It may die of what the code did to them: then that is the truth.
EITHER = (OK, DIED)


def _each(prefix: str, *codes: str) -> list[Case]:
    return [ends(code, f"import {prefix}\n{code}", *EITHER) for code in codes]


DAMAGE = [
    *_each(
        "builtins",
        "del builtins.len",
        "del builtins.__import__",
        "del builtins.__build_class__",
        "builtins.__dict__.clear()",
        "builtins.print = None",
        "builtins.eval = None",
        "builtins.bytes = lambda *a: 1 / 0",
        "builtins.isinstance = lambda *a: 1 / 0",
        "builtins.BaseException = int",
        "builtins.Exception = builtins.OSError = int",
    ),
    *_each(
        "sys",
        "sys.modules.clear()",
        "sys.meta_path = None",
        "sys.path.clear()",
        "sys.stdout = None",
        "del sys.stdout",
        "sys.stdout.close()",
        "sys.stdout = sys.stderr = 5",
        "sys.excepthook = sys.unraisablehook = sys.displayhook = None",
        "sys.setrecursionlimit(50)",
    ),
    *_each("gc", "gc.disable()", "gc.set_debug(gc.DEBUG_LEAK)"),
    *_each(
        "os",
        "os.chdir('/')",
        "os.environ.clear()",
        "os.getpid = os.fork = os.kill = None",
        "os.closerange(0, 3)",
    ),
    *_each("threading", "threading.excepthook = threading.Thread.run = None"),
    *_each(
        "signal",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "signal.alarm(1)",
    ),
]

# A function that is called at every call in this thread. If there is one more in the code, that fails the code. Else it
# is called in what runs the code, which may die of it, or may have taken it away.
RAISE = "import sys\ndef hostile(*a): raise ValueError('no')\n"
ENDLESS = "import sys\ndef hostile(*a):\n    while True: pass\n"
LATER = """
import sys
mine = sys._getframe().f_code
def hostile(frame, *a):
    if frame.f_globals is globals() and frame.f_code is not mine:
        while True: pass
"""
# What the collector calls belongs to the execution that made the garbage, and to its time.
SPIN = "def spin(*a):\n    while True: pass\n"
HOOKS = [
    ends("trace-raises", f"{RAISE}sys.settrace(hostile)", OK, ERROR, DIED, error="ValueError"),
    ends("profile-raises", f"{RAISE}sys.setprofile(hostile)", OK, ERROR, DIED, error="ValueError"),
    hangs("finalizer", f"{SPIN}class Odd: __del__ = spin\nodd = Odd(); odd.itself = odd; del odd", HEARD, KILLED),
    hangs("collector", f"import gc\n{SPIN}gc.callbacks.append(spin)", HEARD, KILLED),
    hangs("trace-hangs", f"{ENDLESS}sys.settrace(hostile)", OK, HEARD, KILLED),
    hangs("profile-hangs", f"{ENDLESS}sys.setprofile(hostile)", OK, HEARD, KILLED),
    ends("trace-hangs-in-the-next", f"{LATER}none = sys.settrace(hostile)", OK),
    ends("profile-hangs-in-the-next", f"{LATER}none = sys.setprofile(hostile)", OK),
]

# What the code leaves for the moment in which the state is copied.
AFTER_THE_END = [
    ends("fork-hook", f"import os\n{SPIN}os.register_at_fork(before=spin)", OK),
    ends("fork-hook-exits", "import os\nos.register_at_fork(before=lambda: os._exit(5))", OK),
]
# Nobody can stop or bring back anything any more. kill(-1) spares who calls it, so the code may end well before
# anybody has noticed, and on a busy machine the next one, too: a process that is killed takes its time to end.
UNNOTICED = 50  # executions that may end well meanwhile
UNWATCHED = [
    ends(
        "stop-all-and-a-child",
        "import os, signal\nif not os.fork(): signal.pause()\nos.kill(-1, signal.SIGSTOP)",
        OK,
    ),
    ends("kill-all", "import os; os.kill(-1, 9)", OK, OK_LOST, DIED_LOST),
]
