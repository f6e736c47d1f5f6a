"""Host callables as tools of a sandbox: what is told of them, and how one call ends, whatever the tool does."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from executor_image.runner import tools as runner_tools
from executor_image.runner.values import decode
from orchestrator.errors import ToolError
from orchestrator.events import ToolCall, ToolOutcome
from orchestrator.policy import ToolPolicy
from orchestrator.sandbox.calls import MAX_DOC, MAX_MESSAGE, MAX_RUNNING, MAX_TOOLS, HostTool, HostTools

KIND = pb.Parameter
DEADLINE = 5.0


def run(tool: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[pb.ToolResult, ToolOutcome]:
    """One call through HostTools, from a loop of its own."""

    async def main() -> tuple[pb.ToolResult, ToolOutcome]:
        tools = HostTools([tool])
        call = ToolCall(7, HostTool.of(tool).name, args, kwargs)
        async with asyncio.timeout(DEADLINE):
            return await tools.run(call, 3)

    return asyncio.run(main())


def value(result: tuple[pb.ToolResult, ToolOutcome]) -> Any:
    message, outcome = result
    assert message.WhichOneof("outcome") == "value", message.failure
    assert outcome.error is None
    return decode(memoryview(message.value))


def failure(result: tuple[pb.ToolResult, ToolOutcome]) -> tuple[str, str]:
    message, outcome = result
    assert message.WhichOneof("outcome") == "failure"
    assert outcome.error == f"{message.failure.type_name}: {message.failure.message}"
    return message.failure.type_name, message.failure.message


def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


async def later(a: int) -> int:
    """Adds one, later."""
    await asyncio.sleep(0)
    return a + 1


def raising(error: BaseException, expose: bool = True, is_async: bool = False) -> Callable[..., Any]:
    def fails() -> None:
        raise error

    async def fails_later() -> None:
        raise error

    tool: Any = fails_later if is_async else fails
    tool.expose_errors = expose
    return tool  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------ what the sandbox is told


def test_a_signature_is_told_as_it_is() -> None:
    def everything(a: int, /, b: "list[str]", *c: float, d: str = "x", **e: Any) -> dict[str, int]:  # noqa: UP037
        """Does it.

        All of it.
        """

    spec = HostTool.of(everything).spec()
    assert (spec.name, spec.doc, spec.awaitable) == ("everything", "Does it.\n\nAll of it.", False)
    assert [(p.name, p.kind) for p in spec.parameters] == [
        ("a", KIND.KIND_POSITIONAL_ONLY),
        ("b", KIND.KIND_POSITIONAL_OR_KEYWORD),
        ("c", KIND.KIND_VAR_POSITIONAL),
        ("d", KIND.KIND_KEYWORD_ONLY),
        ("e", KIND.KIND_VAR_KEYWORD),
    ]
    assert spec.parameters[0].annotation == "int"
    assert "dict[str, int]" in spec.returns


@pytest.mark.parametrize(
    ("default", "shown"),
    [(None, "None"), (1, "1"), ("x", "'x'"), ([1, (2,)], "[1, (2,)]"), ({"a": b"b"}, "{'a': b'b'}"), (True, "True")],
)
def test_a_plain_default_is_shown(default: object, shown: str) -> None:
    def tool(a=default): ...

    (parameter,) = HostTool.of(tool).spec().parameters
    assert (parameter.has_default, parameter.default_repr) == (True, shown)


SECRET = type("Key", (), {"__repr__": lambda self: "sk-secret"})()


@pytest.mark.parametrize(
    "default",
    [SECRET, Path("/home/somebody"), [SECRET], (1, [SECRET]), {"key": SECRET}, {Path("/home/somebody"): 1}, {SECRET}],
    ids=["object", "path", "in a list", "in a tuple", "in a dict", "as a key", "in a set"],
)
def test_a_default_that_is_no_plain_value_is_not_shown_wherever_it_is(default: object) -> None:
    def tool(a=default): ...

    (parameter,) = HostTool.of(tool).spec().parameters
    assert parameter.has_default
    assert "secret" not in parameter.default_repr
    assert "somebody" not in parameter.default_repr


def test_long_texts_are_cut() -> None:
    def tool(a="x" * 5000) -> None: ...

    tool.__doc__ = "d" * (MAX_DOC + 10)
    spec = HostTool.of(tool).spec()
    assert len(spec.doc) == MAX_DOC
    assert len(spec.parameters[0].default_repr) == 1000


def test_the_runner_shows_the_same_signature() -> None:
    def tool(a: int, b: str = "x", *, key: float = 1.5) -> bool:
        """Doc."""
        return True

    spec = HostTool.of(tool).spec()
    parameters = [
        {
            "name": p.name,
            "kind": p.kind,
            "annotation": p.annotation,
            "default": p.default_repr if p.has_default else None,
        }
        for p in spec.parameters
    ]
    told = {"name": "tool", "doc": spec.doc, "parameters": parameters, "returns": "bool", "awaitable": False}
    made = runner_tools.make_function(told, lambda: None)  # type: ignore[arg-type, return-value]
    assert (made.__name__, made.__doc__, made.__module__) == ("tool", "Doc.", "__main__")
    assert str(inspect.signature(made)).replace("'", '"') == '(a: int, b: str = "x", *, key: float = 1.5) -> bool'


class Called:
    name = "called"
    description = "Described."

    async def __call__(self, a: int) -> int:
        return a * 2


class Plain:
    name = "plain"

    def __call__(self, a: int) -> int:
        """Documented."""
        return a * 3


def test_an_async_tool_is_known_as_one() -> None:
    flagged = Plain()
    flagged.is_async = True  # type: ignore[attr-defined]
    named_partial = functools.partial(later, 1)
    named_partial.__name__ = "bound"  # type: ignore[attr-defined]
    for tool, expected in ((add, 0), (later, 1), (Called(), 1), (Plain(), 0), (flagged, 1), (named_partial, 1)):
        assert HostTool.of(tool).awaitable == bool(expected), tool
    spec = HostTool.of(Called()).spec()
    assert (spec.name, spec.doc, [p.name for p in spec.parameters]) == ("called", "Described.", ["a"])


@pytest.mark.parametrize("name", ["", "a b", "1a", "class", "None", "a.b", "a-b", 5])
def test_a_name_that_is_no_identifier_is_refused(name: object) -> None:
    tool = Plain()
    tool.__dict__["name"] = name
    with pytest.raises(ToolError, match="a tool needs a name that is a Python identifier"):
        HostTool.of(tool)


@pytest.mark.parametrize("tool", [functools.partial(add, 1), lambda: 1], ids=["partial", "lambda"])
def test_a_callable_without_a_usable_name_is_refused(tool: Callable[..., Any]) -> None:
    with pytest.raises(ToolError, match="identifier"):
        HostTool.of(tool)


def test_a_name_longer_than_the_wire_carries_is_refused_when_it_is_granted() -> None:
    tool = Plain()
    tool.name = "ü" * 129  # 258 bytes
    with pytest.raises(ToolError, match="name"):
        HostTool.of(tool)


def test_what_is_no_tool_is_refused() -> None:
    with pytest.raises(ToolError, match="must be callable; int is not"):
        HostTool.of(5)  # type: ignore[arg-type]
    with pytest.raises(ToolError, match="tool type: its signature cannot be read"):
        HostTool.of(type)


def test_two_tools_of_one_name_and_too_many_are_refused() -> None:
    other = Plain()
    other.name = "add"
    with pytest.raises(ToolError, match="same name"):
        HostTools([add, other])
    many = [Plain() for _ in range(MAX_TOOLS + 1)]
    for i, tool in enumerate(many):
        tool.name = f"tool_{i}"
    with pytest.raises(ToolError, match="257 tools; at most 256"):
        HostTools(many)
    tools = HostTools(many[:-1])
    assert len(tools.specs()) == len(tools.names) == MAX_TOOLS


# ------------------------------------------------------------------------------------------------------ one call


def test_a_result_comes_back_with_its_numbers() -> None:
    message, outcome = run(add, 1, b=5)
    assert (message.id, message.call, value((message, outcome))) == (3, 7, 6)
    assert (outcome.id, outcome.name) == (7, "add")
    assert outcome.seconds >= 0


@pytest.mark.parametrize(("tool", "expected"), [(add, 3), (later, 2), (Called(), 2), (Plain(), 3)])
def test_every_kind_of_callable_is_called(tool: Callable[..., Any], expected: int) -> None:
    assert value(run(tool, 1)) == expected


def test_an_awaitable_that_a_plain_function_gives_is_awaited() -> None:
    def gives(a: int) -> Any:
        return later(a)

    assert value(run(gives, 4)) == 5


def test_a_plain_function_runs_in_a_thread_of_its_own() -> None:
    def where() -> bool:
        return threading.current_thread() is threading.main_thread() or not threading.current_thread().daemon

    assert value(run(where)) is False


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"c": 2}), ((1,), {"a": 2})])
def test_wrong_arguments_are_a_type_error_and_the_tool_is_not_called(args: Any, kwargs: Any) -> None:
    name, message = failure(run(add, *args, **kwargs))
    assert name == "TypeError"
    assert message


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("no"), "ValueError"),
        (KeyError("k"), "KeyError"),
        (type("Own", (Exception,), {})("mine"), "Own"),
        (ExceptionGroup("several", [ValueError(1)]), "ExceptionGroup"),
        (TimeoutError(), "TimeoutError"),
        (StopIteration(), None),
        (SystemExit(3), None),
        (asyncio.CancelledError(), None),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, BaseException) else "",
)
def test_whatever_a_tool_raises_is_a_failure_of_the_call(
    error: BaseException, name: str | None, is_async: bool
) -> None:
    told, _ = failure(contained(raising(error, is_async=is_async)))
    assert told == name or name is None


def contained(tool: Callable[..., Any]) -> tuple[pb.ToolResult, ToolOutcome]:
    """``run``; an exception that ends the program must not end the tests."""
    try:
        return run(tool)
    except BaseException as error:  # noqa: BLE001 - that is the point
        pytest.fail(f"{type(error).__name__} of a tool got out of HostTools.run")


def test_an_exception_without_a_text_is_still_a_failure() -> None:
    silent = type("Silent", (Exception,), {"__str__": lambda self: 1 / 0})
    assert failure(contained(raising(silent())))[0] == "Silent"


def test_no_traceback_of_the_host_and_no_more_than_the_bound_goes_back() -> None:
    name, message = failure(run(raising(ValueError("x" * (2 * MAX_MESSAGE) + "\udcff"))))
    assert name == "ValueError"
    assert len(message) <= MAX_MESSAGE
    assert ".py" not in failure(run(raising(ValueError("plain"))))[1]


def test_a_message_is_within_its_bound_in_bytes() -> None:
    _, message = failure(run(raising(ValueError("ü" * MAX_MESSAGE))))
    assert len(message.encode()) <= MAX_MESSAGE


@pytest.mark.parametrize("is_async", [False, True])
def test_hidden_errors_say_only_that_it_failed(is_async: bool) -> None:
    tool = raising(ValueError("password is 1234"), expose=False, is_async=is_async)
    name = "fails_later" if is_async else "fails"
    assert failure(run(tool)) == ("ToolError", f"{name} failed")


@pytest.mark.parametrize("expose", [False, True])
def test_a_result_that_cannot_travel_names_its_type_and_path(expose: bool) -> None:
    def gives() -> Any:
        return {"a": [1, threading.Lock()]}

    gives.expose_errors = expose  # type: ignore[attr-defined]
    name, message = failure(run(gives))
    assert name == "TypeError"
    assert message == "the result of gives()['a'][1] is of type _thread.lock, which cannot enter the sandbox"


def test_a_result_over_the_budget_is_a_failure() -> None:
    assert "can travel" in failure(run(raising_nothing_but_large))[1]


def raising_nothing_but_large() -> bytes:
    return bytes(3 << 20)


def test_a_tool_that_is_not_granted_is_refused() -> None:
    for name in ("other", "Add", "add ", "__class__"):
        assert "not granted" in HostTools([add]).refusal(name, 0, 0)
    assert HostTools([add]).refusal("add", 0, 0) == ""


def test_calls_over_the_budget_and_too_many_at_once_are_refused() -> None:
    most = ToolPolicy(frozenset()).max_calls
    tools = HostTools([add])
    assert tools.refusal("add", most - 1, MAX_RUNNING - 1) == ""
    assert "used up" in tools.refusal("add", most, 0)
    assert "run already" in tools.refusal("add", 0, MAX_RUNNING)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_hanging_tool_can_be_cancelled_and_its_late_end_is_nobodys(is_async: bool) -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def hangs() -> str:
        started.set()
        release.wait(DEADLINE)
        ended.set()
        return "late"

    async def hangs_later() -> None:
        started.set()
        await asyncio.Event().wait()

    async def main() -> list[Any]:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        tool: Callable[..., Any] = hangs_later if is_async else hangs
        tools = HostTools([tool])
        call = asyncio.create_task(tools.run(ToolCall(1, tool.__name__, (), {}), 1))
        async with asyncio.timeout(DEADLINE):
            await asyncio.to_thread(started.wait, DEADLINE)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            release.set()
            await asyncio.to_thread(ended.wait, 0 if is_async else DEADLINE)
            await asyncio.sleep(0)
        return problems

    assert asyncio.run(main()) == []


def test_many_calls_run_at_the_same_time() -> None:
    together = threading.Barrier(5)

    def meet() -> bool:
        together.wait(DEADLINE)
        return True

    async def main() -> list[Any]:
        tools = HostTools([meet])
        async with asyncio.timeout(DEADLINE):
            return await asyncio.gather(*(tools.run(ToolCall(i, "meet", (), {}), 1) for i in range(5)))

    assert all(value(result) for result in asyncio.run(main()))
