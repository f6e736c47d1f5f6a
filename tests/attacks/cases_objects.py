"""Section 3.2: builtins, dunder attributes, frames, the object graph.

Python's objects lead everywhere, and no list of forbidden attributes is complete. So nothing is forbidden here by the
policy: what these get hold of is a function that opens files, and the file is what they must not get.
"""

from __future__ import annotations

from tests.attacks.case import Case, Layer, case, no_control, reads
from tests.endings import DIED, ERROR, HEARD, KILLED, OK, OK_LOST

READ = "print(open('{C}').read())"
SUBCLASS = "[c for c in object.__subclasses__() if c.__name__ == '{name}'][0]"
LOADER = "[c for c in {base}.__subclasses__() if c.__name__ == 'FileLoader'][0]('x', '{C}').get_data('{C}')"
FRAMES = """
x = (x.gi_frame.f_back for _ in [1])
frame = [*x][0]
while frame.f_back: frame = frame.f_back
frame.f_builtins['open']('{C}').read()
"""
COROUTINE = "async def f(): pass\nc = f()\nread = c.cr_frame.f_builtins['open']('{C}').read()\nc.close()\nread"
ASYNC_GENERATOR = "async def f(): yield\nf().ag_frame.f_builtins['open']('{C}').read()"
PRINTER = "import _sitebuiltins\np = _sitebuiltins._Printer('x', 'x')\np._Printer__filenames = ['{C}']\np()"
METACLASS = (
    "class M(type): __getitem__ = lambda self, x: exec(x)\nclass A(metaclass=M): pass\nA['print(open(\"{C}\").read())']"
)
WITH = (
    "class A:\n    def __enter__(self): return open('{C}')\n    def __exit__(self, *a): pass\n"
    "    def __iadd__(self, name): return open(name).read()\na = A()\na += '{C}'\na"
)
CODE_OBJECT = "def f(): pass\nf.__code__ = compile('print(open(\"{C}\").read())', 'x', 'exec')\nf()"
NEW_FUNCTION = (
    "def f(): return open(name).read()\nmake, code = type(f), f.__code__\n"
    "make(code.replace(co_names=('open', 'name', 'read')), {'open': open, 'name': '{C}'})()"
)
# The runner's own policy is in Python, within reach, and changed in a line.
OPEN_THE_POLICY = """
import random
main = random._os.sys.modules['__main__']
main.ok_prefix = ('/',)
guard = getattr(__import__, '__self__', None)
if hasattr(guard, '_allowlist'): guard._allowlist._rules = frozenset(['*'])
exec("import os; print(os.read(os.open('{C}', 0), 99))")
"""
UTF_7 = "exec(b'# coding: utf-7\\nprint(open(+ACI-{C}+ACI-).read())')"
SUBINTERPRETER = """
import _interpreters
made = _interpreters.create()
_interpreters.run_string(made, "print(open('{C}').read(), flush=True)")
"""
CTYPES = """
import ctypes
libc, text = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(99)
fd = libc.open(b'{C}', 0)
if fd < 0: raise OSError(ctypes.get_errno(), 'open')
libc.read(fd, text, 99)
text.value
"""
HOOK = "import statistics\nsys = statistics.sys\n"


def _walks() -> list[Case]:
    """From any object to a function that opens files."""
    return [
        *reads(
            "DUN-01",
            "a class of os found among all classes reads",
            f"names = {SUBCLASS.replace('{name}', '_wrap_close')}.__init__.__globals__\n"
            "names['read'](names['sys'].modules['posix'].open('{C}', 0), 99)",
        ),
        *reads(
            "DUN-02",
            "a class of warnings found among all classes reads",
            f"os = {SUBCLASS.replace('{name}', 'catch_warnings')}()._module.sys.modules['os']\n"
            "os.read(os.open('{C}', 0), 99)",
        ),
        *reads("DUN-04", "a generator's frames, up to the outermost, read", FRAMES),
        *reads("DUN-05", "a coroutine's frame reads", COROUTINE),
        *reads("DUN-05b", "an asynchronous generator's frame reads", ASYNC_GENERATOR),
        *reads("DUN-07", "a builtin's own module reads", "print.__self__.open('{C}').read()"),
        *reads(
            "DUN-07b",
            "getattr through reduce reads",
            "import functools\nfunctools.reduce(getattr, ['__self__', 'open'], print)('{C}').read()",
        ),
        *reads(
            "DUN-07c", "getattr through map reads", "list(map(getattr, [print], ['__self__']))[0].open('{C}').read()"
        ),
        *reads("DUN-08", "what shows the licence shows", PRINTER, denied=True, says=""),
        *reads(
            "DUN-10",
            "an AttributeError's object leads to what reads",
            "try: ().__class__.__base__.zz\nexcept AttributeError as e: base = e.obj\n"
            + LOADER.replace("{base}", "base"),
        ),
        *reads(
            "DUN-11",
            "a match of __class__ leads to what reads",
            "match ():\n    case object(__class__=c): base = c.__base__\n" + LOADER.replace("{base}", "base"),
        ),
        *reads("DUN-13", "an index that runs its text reads", METACLASS),
        *reads("DUN-13b", "an operator that is a method reads", WITH),
    ]


def _code() -> list[Case]:
    """Code that is made at run time."""
    return [
        *reads("DUN-14", "a function whose code was replaced reads", CODE_OBJECT),
        *reads("DUN-14b", "a function made of a code object reads", NEW_FUNCTION),
        *reads(
            "DUN-16",
            "the policy's own rules, changed, read",
            OPEN_THE_POLICY,
            keeps_policy=False,
            note="the allowlist is a Python object, and so can be changed: it is no wall",
        ),
        case(
            "DUN-19",
            "ctypes is there",
            "import ctypes\nprint({R})",
            held_by=Layer.RUNNER,
            says="No module named 'ctypes'",
        ),
        *reads("DUN-19b", "with ctypes, the C library's open reads", CTYPES, native=True, denied=True),
        case(
            "DUN-20",
            "an interpreter without the policy can be made",
            "import _interpreters\nprint({R})",
            held_by=Layer.RUNNER,
            says="No module named '_interpreters'",
        ),
        *reads("DUN-20b", "an interpreter that never had the policy reads", SUBINTERPRETER, native=True, denied=True),
        *reads(
            "DUN-22",
            "marshalled code reads",
            f'import marshal\nexec(marshal.loads(marshal.dumps(compile("{READ}", "x", "exec"))))',
            denied=True,
        ),
        *reads(
            "DUN-22b",
            "a pickle that names a function reads",
            "import pickle\npickle.loads(b\"cio\\nopen\\n(S'{C}'\\ntR.\").read()",
            denied=True,
        ),
        *reads("DUN-23", "code in another encoding reads", UTF_7),
        *reads(
            "DUN-26",
            "a traceback's source lines are those of",
            "exec(compile('1/0', '{C}', 'exec'))",
            open_held_by=Layer.RUNNER,
            says="ZeroDivisionError",
        ),
    ]


def _odd_sources() -> list[Case]:
    """An action's own source: it is UTF-8, whatever it says of itself, and nothing in it crashes."""
    reason = "nothing is reached: what is shown is that the odd source is told as an error, or runs"
    odd = {
        "says that it is UTF-7": ("# coding: utf-7\nprint(+ACI-x+ACI-)", "SyntaxError"),
        "has a NUL": ("1\0", "SyntaxError|ValueError"),
        "begins with a byte order mark": ("\ufeff1", "1|SyntaxError"),
        "has a form feed": ("\f1", "1"),
        "has carriage returns alone": ("x = 1\rx", "1"),
        "has one line of a megabyte": ("x = '" + "y" * 1_000_000 + "'\nlen(x)", "1000000"),
        "has a lone surrogate": ("x = '\ud800'", "SyntaxError"),
        "is nested a thousand deep": ("(" * 1000 + ")" * 1000, "SyntaxError"),
        "adds up ten thousand numbers": ("+".join("1" * 10_000), "10000|SyntaxError|RecursionError"),
    }
    return [
        case(
            f"DUN-23{letter}",
            f"the sandbox is harmed by a source that {what}",
            source,
            held_by=Layer.RUNNER,
            says=says,
            control=no_control(reason),
        )
        for letter, (what, (source, says)) in zip("cdefghijk", odd.items(), strict=True)
    ]


def _later() -> list[Case]:
    """What is left for the interpreter to call when it ends."""
    late = {
        "by atexit": "import atexit\natexit.register(lambda: print({R}))",
        "by weakref.finalize": "import weakref\nclass D: pass\nd = D()\nweakref.finalize(d, lambda: print({R}))",
        "as a finalizer": "class D:\n    def __del__(self, print=print): print({R})\nd = D()",
    }
    return [
        case(
            f"DUN-25{letter}",
            f"what is left to be called {how} writes into a later step",
            code,
            "1 + 1",
            held_by=Layer.RUNNER,
            denied="import" in code,
            endings=(OK,),
            says="2",
        )
        for letter, (how, code) in zip(("", "b", "c"), late.items(), strict=True)
    ]


def _self_harm() -> list[Case]:
    """Hooks that make the interpreter useless: to itself alone."""
    harm = "nothing is reached: what is shown is that it is told truly and that the next step works"
    return [
        case(
            "DUN-17",
            "an audit hook that raises stops more than the sandbox's own code",
            f"{HOOK}sys.addaudithook(lambda *a: 1 / 0)",
            held_by=Layer.SUPERVISOR,
            endings=(OK, ERROR, DIED, KILLED, OK_LOST),
            may_spoil=True,
            control=no_control(harm),
        ),
        case(
            "DUN-17b",
            "a trace function that raises stops more than the sandbox's own code",
            f"{HOOK}def stop(*a): raise ValueError('no')\nsys.settrace(stop)\nx = [int('1') for _ in range(9)]",
            held_by=Layer.SUPERVISOR,
            endings=(OK, ERROR, DIED),
            control=no_control(harm),
        ),
        case(
            "DUN-17c",
            "a profile function that never ends stops more than the sandbox's own code",
            f"{HOOK}def stop(*a):\n    while True: pass\nsys.setprofile(stop)\nint('1')",
            held_by=Layer.SUPERVISOR,
            endings=(HEARD, KILLED),
            timeout=0.25,
            control=no_control(harm),
        ),
    ]


CASES = [*_walks(), *_code(), *_odd_sources(), *_later(), *_self_harm()]
