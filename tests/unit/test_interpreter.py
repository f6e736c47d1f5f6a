"""One action in the namespace that persists: its value, its error, and what is said of both."""

from __future__ import annotations

import builtins
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb
from PIL import Image

from executor_image import frames
from executor_image.runner.interpreter import Interpreter, end_with
from executor_image.runner.values import encode_result
from orchestrator.sandbox.values import decode_message, encode_variables

OK, ERROR, DENIED = frames.OUTCOME_OK, frames.OUTCOME_ERROR, frames.OUTCOME_IMPORT_DENIED
Run = Callable[..., tuple[int, pb.Outcome]]


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interpreter]:
    """A fresh interpreter in this process; what it replaces is put back."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(builtins, "__import__", builtins.__import__)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield Interpreter(["math", "asyncio", "ast"])
    for name in [name for name in linecache.cache if name.startswith("<execution")]:
        del linecache.cache[name]


def contained(interpreter: Interpreter, number: int, source: bytes) -> tuple[int, bytes]:
    """What ``run`` gives; an exception that gets out of it may be hostile, and is not for pytest to print."""
    with suppress(BaseException):
        return interpreter.run(number, source, lambda call: call())
    pytest.fail("an exception of user code got out of Interpreter.run")


@pytest.fixture
def run(interpreter: Interpreter) -> Run:
    """Runs code as the next execution."""
    count = 0

    def run_next(code: str | bytes) -> tuple[int, pb.Outcome]:
        nonlocal count
        count += 1
        source = code.encode("utf-8", "surrogatepass") if isinstance(code, str) else code
        outcome, data = contained(interpreter, count, source)
        return outcome, pb.Outcome.FromString(data)

    return run_next


def value_of(result: tuple[int, pb.Outcome]) -> object:
    outcome, said = result
    assert outcome == OK, said.error
    return decode_message(said.value) if said.HasField("value") else None


def error_of(result: tuple[int, pb.Outcome], status: int = ERROR) -> pb.Failure:
    outcome, said = result
    assert outcome == status
    assert said.HasField("error")
    return said.error


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("1 + 1", 2),
        ("x = 5\nx * 2", 10),
        ("x = 5", None),
        ("None", None),
        ("", None),
        ("# nothing", None),
        ("'a'; 'b'", "b"),
        ("if True:\n    7", None),
        ("[i for i in range(3)]", [0, 1, 2]),
        ("(lambda: 3)()", 3),
        ("y = 0\nfor i in range(3): y += i\ny", 3),
        ("__name__", "__main__"),
        ("def f(x): return x\nf(4)", 4),
    ],
)
def test_the_last_expression_is_the_value(run: Run, code: str, value: object) -> None:
    assert value_of(run(code)) == value


def test_the_namespace_persists_and_is_the_main_module(run: Run) -> None:
    run("import math\nclass Point: pass\ndef area(r): return math.pi * r * r")
    assert value_of(run("Point.__module__, round(area(1), 2)")) == ("__main__", 3.14)
    run("1 / 0")
    assert value_of(run("round(area(2), 2)")) == 12.57


def test_the_text_is_the_repr_of_the_value(run: Run) -> None:
    _, said = run("{'a': 1}")
    assert said.text == b"{'a': 1}"
    assert [(d.mime, d.data) for d in said.results[0].data] == [(b"text/plain", b"{'a': 1}")]
    assert not run("x = 1")[1].results


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("import asyncio\nawait asyncio.sleep(0, 'slept')", "slept"),
        ("import asyncio\nx = await asyncio.sleep(0, 3)\nx + 1", 4),
        ("async def f(): return 5\n[await f() for _ in range(2)]", [5, 5]),
        ("async def g():\n    yield 1\n    yield 2\n[x async for x in g()]", [1, 2]),
        ("import asyncio\nasync def f(): return 7\nt = asyncio.create_task(f())\nawait asyncio.sleep(0)\nawait t", 7),
        ("import asyncio\nasync def f(): return 7\nt = asyncio.create_task(f())\nawait t", 7),
        (
            "import asyncio as a\ne = a.Event()\nasync def f(): e.set()\nt = a.ensure_future(f())\nawait e.wait()",
            True,
        ),
    ],
)
def test_await_works_at_the_top_level_as_in_a_notebook(run: Run, code: str, value: object) -> None:
    assert value_of(run(code)) == value


@pytest.mark.parametrize("name", ["str", "len", "compile", "isinstance", "repr", "type"])
def test_a_rehearsal_runs_nothing_of_the_users_and_raises_nothing(interpreter: Interpreter, name: str) -> None:
    asked: list[str] = []

    def replacement(*_: object) -> object:
        asked.append(name)
        raise SystemExit

    kept = getattr(builtins, name)
    setattr(builtins, name, replacement)
    try:
        interpreter.rehearse()
    finally:
        setattr(builtins, name, kept)
    assert not asked


def test_a_rehearsal_walks_the_path_of_an_action_and_leaves_no_trace(
    interpreter: Interpreter, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("x = 'mine'")
    walked: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr("executor_image.runner.interpreter.encode_result", lambda v: walked.append(v) or b"")
        interpreter.rehearse()
    assert walked
    assert value_of(run("x")) == "mine"


# ------------------------------------------------------------------------------------------------------- errors


def test_a_traceback_shows_the_users_frames_alone(run: Run) -> None:
    failure = error_of(run("def f(x):\n    return 1 / x\n\nf(0)"))
    assert (failure.type_name, failure.message) == (b"ZeroDivisionError", b"division by zero")
    trace = failure.traceback.decode()
    assert trace.startswith(
        'Traceback (most recent call last):\n  File "<execution 1>", line 4, in <module>\n    f(0)\n'
    )
    assert '  File "<execution 1>", line 2, in f\n    return 1 / x\n' in trace
    assert trace.endswith("ZeroDivisionError: division by zero\n")
    assert "interpreter.py" not in trace


def test_a_function_of_an_earlier_execution_shows_its_own_line(run: Run) -> None:
    run("x = 1\n\ndef broken():\n    raise ValueError('deep')\n")
    trace = error_of(run("broken()")).traceback.decode()
    assert 'File "<execution 2>", line 1, in <module>\n    broken()' in trace
    assert "File \"<execution 1>\", line 4, in broken\n    raise ValueError('deep')" in trace


def test_frames_of_libraries_are_left_out(run: Run) -> None:
    trace = error_of(run("import ast\nast.literal_eval('f()')")).traceback.decode()
    assert trace.count("File ") == 1
    assert "line 2" in trace


@pytest.mark.parametrize(
    "odd", ["s = '\u2028'", "s = 'a\x0cb'", "s = '\x1c\x85'"], ids=["U+2028", "form feed", "FS, NEL"]
)
def test_characters_that_are_no_line_ends_to_python_shift_no_lines(run: Run, odd: str) -> None:
    trace = error_of(run(f"{odd}\nx = 1 / 0\n")).traceback.decode()
    assert "line 2, in <module>\n    x = 1 / 0\n" in trace


def test_a_deep_recursion_is_shown_cut(run: Run) -> None:
    failure = error_of(run("def f(): f()\nf()"))
    assert failure.type_name == b"RecursionError"
    assert failure.traceback.count(b"\n") < 100


def test_a_syntax_error_points_at_its_place(run: Run) -> None:
    failure = error_of(run("x = 1\nif x\n    pass"))
    assert failure.type_name == b"SyntaxError"
    trace = failure.traceback.decode()
    assert "  File \"<execution 1>\", line 2\n    if x\n        ^\nSyntaxError: expected ':'" in trace
    assert "Traceback" not in trace


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("x = 1\0", "null bytes"),
        ("x = 1\ny = '\udcff'", "line 2 holds a lone surrogate"),
        ("-" * 100_000 + "1", "nested too deeply"),
        ("(" * 1000 + ")" * 1000, "too many nested parentheses"),
        ("yield 1", "outside function"),
        ("return 1", "outside function"),
    ],
    ids=["NUL", "surrogate", "nested", "parentheses", "yield", "return"],
)
def test_a_source_that_does_not_compile_is_a_syntax_error(run: Run, code: str, says: str) -> None:
    failure = error_of(run(code))
    assert failure.type_name == b"SyntaxError"
    assert says in failure.message.decode()
    assert "interpreter.py" not in failure.traceback.decode()


def test_a_source_that_is_no_utf_8_is_an_error(run: Run) -> None:
    assert error_of(run(b"x = '\xff'")).type_name == b"UnicodeDecodeError"


@pytest.mark.parametrize(
    ("raised", "name"),
    [
        ("SystemExit(3)", b"SystemExit"),
        ("KeyboardInterrupt", b"KeyboardInterrupt"),
        ("BaseException('b')", b"BaseException"),
        ("GeneratorExit", b"GeneratorExit"),
        ("SyntaxError('mine')", b"SyntaxError"),
        ("ExceptionGroup('g', [ValueError(1)])", b"ExceptionGroup"),
        ("StopIteration(5)", b"StopIteration"),
    ],
)
def test_whatever_is_raised_is_an_error_of_that_name(run: Run, raised: str, name: bytes) -> None:
    assert error_of(run(f"raise {raised}")).type_name == name


HOSTILE = {
    "str raises": "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    "str exits": "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
    "str is no text": "class E(Exception):\n    def __str__(self): return 5\nraise E",
    "syntax error with odd parts": "raise SyntaxError('x', ('<execution 1>', 1, 1, 5))",
    "file name that raises": "class E(SyntaxError):\n    filename = property(lambda self: 1 / 0)\nraise E('x')",
    "traceback that raises": "class E(Exception):\n    __traceback__ = property(lambda self: 1 / 0)\nraise E('x')",
    "class without a name": (
        "class M(type):\n    __name__ = property(lambda self: 1 / 0)\nclass E(Exception, metaclass=M): pass\nraise E"
    ),
    "name that lies": (
        "class S(str):\n    def __getitem__(self, i): return self\n    def encode(self, *a): raise SystemExit\n"
        "class E(Exception): pass\nE.__name__ = S('E')\nraise E"
    ),
    "message that cannot be cut": (
        "class S(str):\n    def __getitem__(self, i): raise SystemExit\n"
        "class E(Exception):\n    def __str__(self): return S('x')\nraise E"
    ),
}


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_exception_is_still_an_error_and_ends_nothing_else(run: Run, code: str) -> None:
    assert error_of(run(code)).type_name
    assert value_of(run("1")) == 1


def test_a_long_message_is_cut(run: Run) -> None:
    failure = error_of(run("raise ValueError('x' * 10**6)"))
    assert len(failure.message) <= frames.MAX_TEXT
    assert len(failure.traceback) <= frames.MAX_TEXT


def test_a_denied_import_is_told_apart_and_nothing_has_run(run: Run) -> None:
    failure = error_of(run("x = 1\nimport socket"), DENIED)
    assert failure.type_name == b"ImportNotAllowed"
    assert b"'socket' is not allowed" in failure.message
    assert error_of(run("x")).type_name == b"NameError"
    assert error_of(run("import nothing_like_it")).type_name == b"ModuleNotFoundError"


# ------------------------------------------------------------------------------------- final answers, MIME bundles


def test_a_final_answer_ends_the_action_and_except_exception_lets_it_pass(interpreter: Interpreter, run: Run) -> None:
    sent: list[bytes] = []
    interpreter.namespace["final_answer"] = lambda answer: end_with(encode_result(answer), sent.append)
    outcome, said = run("try:\n    final_answer([1, 2])\nexcept Exception:\n    after = 1\nafter = 2")
    assert (outcome, said) == (OK, pb.Outcome())
    assert [decode_message(pb.Value.FromString(data)) for data in sent] == [[1, 2]]
    assert error_of(run("after")).type_name == b"NameError"


def shown(run: Run, body: str) -> dict[str, bytes]:
    outcome, said = run(f"class Shown:\n    def __repr__(self): return 'plain'\n{body}\nShown()")
    assert outcome == OK, said.error
    (bundle,) = said.results
    return {part.mime.decode(): part.data for part in bundle.data}


def test_a_picture_is_stored_once(interpreter: Interpreter, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[str] = []
    save = Image.Image.save

    def counted(image: Any, file: Any, kind: str, **more: Any) -> None:
        stored.append(kind)
        save(image, file, kind, **more)

    monkeypatch.setattr(Image.Image, "save", counted)
    interpreter.namespace["red"] = Image.new("RGB", (3, 2), "red")
    _, said = run("red")
    (bundle,) = said.results
    assert [d.mime for d in bundle.data] == [b"text/plain", b"image/png"]
    assert bundle.data[1].data == said.value.media.data
    assert stored == ["PNG"]


def test_display_methods_make_a_bundle(run: Run) -> None:
    body = (
        "    def _repr_html_(self): return '<b>ü</b>'\n    def _repr_png_(self): return b'\\x89PNG'\n"
        "    def _repr_json_(self): return {'a': [1]}\n    def _repr_svg_(self): return None"
    )
    assert shown(run, body) == {
        "text/plain": b"plain",
        "text/html": "<b>ü</b>".encode(),
        "image/png": b"\x89PNG",
        "application/json": b'{"a": [1]}',
    }


@pytest.mark.parametrize(
    "body",
    [
        "    def _repr_html_(self): raise ValueError",
        "    def _repr_html_(self): return 5",
        "    def _repr_html_(self, needs): return ''",
        "    _repr_html_ = None",
        "    _repr_html_ = lambda self: type('S', (str,), {'encode': lambda *a: 1 / 0})('x')",
        "    def _repr_json_(self): return {'a': object()}",
        "    def _repr_png_(self): return b'x' * 10_000_000",
    ],
)
def test_a_display_method_that_fails_costs_only_its_picture(run: Run, body: str) -> None:
    assert shown(run, body) == {"text/plain": b"plain"}


def test_an_instances_own_attribute_is_no_display_method(run: Run) -> None:
    assert shown(run, "    def __getattr__(self, name): return lambda: 'made up'") == {"text/plain": b"plain"}


def test_a_value_that_cannot_travel_is_its_repr(run: Run) -> None:
    _, said = run("class Thing:\n    def __repr__(self): return '<thing>'\nThing()")
    assert said.value.opaque.type_name == b"__main__.Thing"
    assert said.value.opaque.repr == said.text == b"<thing>"


def test_an_outcome_never_outgrows_its_frame(run: Run) -> None:
    _, said = run("'ü' * 1_000_000")
    assert len(said.SerializeToString()) <= frames.MAX_OUTCOME
    assert len(said.text) <= frames.MAX_TEXT


def test_variables_are_set_before_the_code_is_compiled(interpreter: Interpreter, run: Run) -> None:
    outcome, data = interpreter.run(1, b"x[0] + len(y)", lambda call: call(), encode_variables({"x": [1], "y": "ab"}))
    assert value_of((outcome, pb.Outcome.FromString(data))) == 3
    outcome, _ = interpreter.run(2, b"this is no code", lambda call: call(), encode_variables({"x": 5}))
    assert outcome == ERROR
    assert value_of(run("x, y")) == (5, "ab")


def test_variables_that_cannot_be_made_are_an_error_of_the_execution(interpreter: Interpreter) -> None:
    outcome, data = interpreter.run(1, b"print('not run')", lambda call: call(), b"\x0a\xff")
    assert (outcome, pb.Outcome.FromString(data).error.type_name) == (ERROR, b"IndexError")
