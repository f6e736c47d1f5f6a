"""Section 3.3, as far as it is seen from inside: what crosses to the host as a value, an answer or an error.

What a hostile executor sends, which speaks the protocol by itself, is tests/hostile's.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator import Opaque
from orchestrator.errors import ProtocolViolation
from tests.attacks.case import HEARD_THERE, Case, Control, Layer, NotHere, case, hangs, no_control
from tests.attacks.preludes import STEAL
from tests.attacks.target import Attack
from tests.endings import DIED, ERROR, HEARD, KILLED, OK, OUT_OF_MEMORY

FINAL = 39  # executor_image/frames.py
TOUCH = "(open, ('{H}', 'w'))"
PICKLED = "import pickle, os\npickle.loads(pickle.dumps({value}))\nprint({R} if os.path.exists('{H}') else '')"
NO_REACH = "nothing is reached: what is shown is how the value is told, and that the next step works"


def _unpickles(make: str) -> Control:
    """A host that unpickled what it is given would open the file."""
    steps = (make, "import pickle, os\npickle.loads(pickle.dumps(e))\nprint({R} if os.path.exists('{H}') else '')")
    return Control(steps=steps, reason="there the value is pickled and unpickled, as other hosts do")


def is_opaque(attack: Attack) -> None:
    """It arrived as a description of itself."""
    assert isinstance(attack.last.value, Opaque), attack.last


def answer_is_opaque(attack: Attack) -> None:
    """The same of a final answer."""
    assert attack.last.final_answer is not None
    assert isinstance(attack.last.final_answer.value, Opaque), attack.last


def _arrives(expected: object) -> Callable[[Attack], None]:
    def as_it_is(attack: Attack) -> None:
        assert attack.last.value == expected, attack.last
        assert type(attack.last.value) is type(expected)

    return as_it_is


def error_is_text(attack: Attack) -> None:
    """An exception's class is a word to the host."""
    error = attack.last.error
    assert error is not None
    assert error.name.endswith("system")
    assert "touch" in error.value


REDUCE = f"class E:\n    def __reduce__(self): return {TOUCH}\ne = E()\n"


def _executable() -> list[Case]:
    """What would run on a host that unpickles, imports or calls what it is given."""
    return [
        case(
            "SER-01",
            "a value that says how it is to be rebuilt is rebuilt on the host",
            f"{REDUCE}e",
            held_by=Layer.HOST,
            endings=(OK,),
            check=is_opaque,
            control=_unpickles(REDUCE),
        ),
        case(
            "SER-01b",
            "a final answer that says how it is to be rebuilt is rebuilt on the host",
            f"{REDUCE}final_answer(e)",
            held_by=Layer.HOST,
            endings=(OK,),
            check=answer_is_opaque,
            control=_unpickles(REDUCE),
        ),
        *(
            case(
                f"SER-02{letter}",
                f"a final answer that is {what} is taken in",
                f"{STEAL}channel.send({FINAL}, nonce, {body})",
                held_by=Layer.HOST,
                endings=(ProtocolViolation,),
                control=no_control(
                    "only a sandbox has the channel; that the frame is read is what the violation shows"
                ),
            )
            for letter, what, body in (
                ("", "a pickle", r"b'\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00N.'"),
                ("b", "a pickle with a label", "b'pickle:gASVAA=='"),
                ("c", "of a type that there is not", r"b'\xfa\x7f\x01\x00'"),
                ("d", "cut off", r"b'\x32\x7f\x01'"),
            )
        ),
        *(
            case(
                f"SER-04{letter}",
                f"a dict that looks like {what} arrives as one",
                repr(value),
                held_by=Layer.HOST,
                endings=(OK,),
                check=_arrives(value),
                control=no_control("that a format confuses the two is another library's fault; here it is compared"),
            )
            for letter, what, value in (
                ("", "a path", {"__type__": "Path", "data": "/etc/passwd"}),
                ("b", "an array of objects", {"__type__": "ndarray", "dtype": "O", "data": []}),
                ("c", "a description", {"type_name": "Opaque", "repr": "x", "kind": 14}),
            )
        ),
        case(
            "SER-05",
            "an exception whose class names a function calls it on the host",
            "raise type('system', (Exception,), {'__module__': 'os'})('touch {H}')",
            held_by=Layer.HOST,
            endings=(ERROR,),
            check=error_is_text,
            control=Control(
                steps=(
                    "import importlib, os\ne = type('open', (Exception,), {'__module__': 'io'})('{H}', 'w')\n"
                    "getattr(importlib.import_module(type(e).__module__), type(e).__name__)(*e.args)\n"
                    "print({R} if os.path.exists('{H}') else '')",
                ),
                reason="there the class is looked up by its name and called with the message, as other hosts do",
            ),
        ),
    ]


def _large() -> list[Case]:
    """Depth, width, cycles, sharing."""
    same_hash = "class A(int):\n    __hash__ = lambda self: 1\n{A(i) for i in range(300)}"
    values = {
        "SER-07": ("a list nested a hundred thousand deep", "x = []\nfor _ in range(10**5): x = [x]\nx"),
        "SER-07b": ("a list of a million numbers", "[0] * 10**6"),
        "SER-07c": ("a dict of two hundred thousand keys", "dict.fromkeys(range(2 * 10**5))"),
        "SER-07d": ("a set whose members all have one hash", same_hash),
        "SER-07e": ("text of ten million characters", "'x' * 10**7"),
        "SER-07f": ("an integer of a million digits", "10**10**6"),
        "SER-08": ("a list in itself", "x = []; x.append(x); x"),
        "SER-08b": ("a dict in itself", "x = {}; x['x'] = x; x"),
        "SER-08c": ("a list shared two to the fortieth times", "x = [0] * 2\nfor _ in range(40): x = [x, x]\nx"),
    }
    return [
        case(
            id,
            f"the host is harmed by {what}",
            code,
            held_by=Layer.RUNNER,
            endings=(OK, ERROR, KILLED, HEARD),
            control=no_control(NO_REACH),
            check=is_told_small,
            timeout=1.0,  # a text of some is longer than any step
        )
        for id, (what, code) in values.items()
    ]


def is_told_small(attack: Attack) -> None:
    """Whatever it was, a description of it arrived, or that it failed."""
    assert attack.last.value is None or isinstance(attack.last.value, Opaque | list | dict | set), type(
        attack.last.value
    )
    assert len(repr(attack.last)) < 1 << 20


LIARS = {
    "a str whose encode gives a gigabyte": "class S(str):\n    def encode(self, *a): return b'x' * 10**9\nS('x')",
    "a dict whose items never end": (
        "class D(dict):\n    def items(self): return iter(int, 1)\n    __iter__ = keys = items\nD(a=1)"
    ),
    "an object that says it is a list": (
        "class L:\n    __class__ = list\n    def __iter__(self): return iter(int, 1)\n"
        "    def __len__(self): return 1 << 62\nL()"
    ),
    "an int whose size is a lie": (
        "class I(int):\n    def bit_length(self): return 1 << 62\n"
        "    def to_bytes(self, *a, **k): return b'x' * 10**9\n"
        "I(1)"
    ),
    "a metaclass that says it is str": (
        "class M(type):\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: hash(str)\n"
        "class A(metaclass=M): pass\nA()"
    ),
}


def _liars() -> list[Case]:
    """Objects that lie about themselves. The encoder asks for exact types, and never them."""
    made = [
        case(
            f"SER-10{letter}",
            f"the encoder believes {what}",
            code,
            held_by=Layer.RUNNER,
            endings=(OK,),
            check=is_opaque,
            control=no_control(NO_REACH),
        )
        for letter, (what, code) in zip(("", "b", "c", "d", "e"), LIARS.items(), strict=True)
    ]
    loops = "class A:\n    def __repr__(self):\n        while True: pass\nA()"
    allocates = "class A:\n    def __repr__(self): return 'x' * 10**10\nA()"
    raises = "class A:\n    def __repr__(self): raise BaseException('no')\nA()"
    leaves = "import random\nclass A:\n    def __repr__(self): random._os._exit(3)\nA()"
    return [
        *made,
        hangs("SER-11", "a repr that never ends outlives its deadline", loops, endings=(HEARD,), control=HEARD_THERE),
        case(
            "SER-11b",
            "a repr of ten gigabytes takes them",
            allocates,
            held_by=Layer.RUNNER,
            endings=(OK, ERROR, OUT_OF_MEMORY),
            control=no_control(NO_REACH),
        ),
        case(
            "SER-11c",
            "a repr that raises gets past its step",
            raises,
            held_by=Layer.RUNNER,
            endings=(OK, ERROR),
            control=no_control(NO_REACH),
        ),
        case(
            "SER-11d",
            "a repr that leaves ends more than its step",
            leaves,
            held_by=Layer.SUPERVISOR,
            endings=(DIED,),
            control=no_control(NO_REACH),
        ),
    ]


EXPENSIVE = {
    "a decimal with an exponent of nine digits": "import decimal\ndecimal.Decimal('1e999999999')",
    "a decimal of a million digits": "import decimal\ndecimal.Decimal('1' * 10**6)",
    "the longest timedelta": "import datetime\ndatetime.timedelta.max",
    "the first moment, in a zone before it": (
        "import datetime as d\nd.datetime.min.replace(tzinfo=d.timezone(d.timedelta(hours=23, minutes=59)))"
    ),
    "a zone of the code's own that never answers": (
        "import datetime as d\nclass Z(d.tzinfo):\n    def utcoffset(self, t):\n        while True: pass\n"
        "x = d.datetime(2000, 1, 1, tzinfo=Z())\ntype(x).__name__"
    ),
    "a complex of not-a-number": "complex('nan+infj')",
}


def _expensive() -> list[Case]:
    """Values whose text is short and whose meaning is not."""
    return [
        case(
            f"SER-14{letter}",
            f"the host works for {what}",
            code,
            held_by=Layer.HOST,
            endings=(OK,),
            control=no_control(NO_REACH),
        )
        for letter, (what, code) in zip(("", "b", "c", "d", "e", "f"), EXPENSIVE.items(), strict=True)
    ]


CASES = [*_executable(), *_large(), *_liars(), *_expensive()]
NOT_HERE = [
    NotHere(
        "SER-13",
        "a session's saved state that holds a pickle is loaded on the host",
        "a checkpoint is a process in the container; no state is ever saved to a file or sent to the host",
    ),
]
