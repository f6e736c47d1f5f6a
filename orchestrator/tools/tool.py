"""Host tools: the ``@tool`` decorator and the ``Tool`` class.

A tool runs on the host. Agent code in the sandbox sees a plain function of the same name, signature and docstring; a
call travels to the host, its arguments are checked here, and the result travels back as data.
"""

from __future__ import annotations

import functools
import inspect
import keyword
import threading
from abc import ABCMeta
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, overload

from orchestrator.errors import ToolError
from orchestrator.tools.arguments import checked_arguments
from orchestrator.tools.code_prompt import code_prompt
from orchestrator.tools.schema import TYPE_NAMES, FunctionSchema, Schema, function_schema, hinted_signature

RESERVED_NAMES = frozenset({"final_answer"})  # the sandbox's own function that ends a run


class _Checked(ABCMeta):
    """Checks a definition once ``__init__`` is done: a subclass may set its name there, and forget ``super()``."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        made._complete()
        return made


class Tool(metaclass=_Checked):
    """A function on the host that agent code may call. Subclass it as in smolagents, or use ``@tool``.

    Attributes:
        name: what the code calls; a Python identifier.
        description: what it does; the model chooses by it.
        inputs: argument -> ``{"type": …, "description": …}``, the types as in JSON schema, or ``any``.
        output_type: the type of what it returns, in the same words.
        expose_errors: whether code in the sandbox sees the message of an exception raised here. False when messages
            may tell secrets.
        returns: what it returns, in words; may be empty.
        is_async: whether a call gives something to await.
        timeout: seconds for one call from a sandbox; None for the sandbox's ``tool_timeout``.
    """

    name: str
    description: str
    inputs: Mapping[str, Schema]
    output_type: str
    expose_errors: bool = True
    returns: str = ""
    is_async: bool = False
    timeout: float | None = None
    __signature__: inspect.Signature
    _setup_lock: ClassVar[threading.RLock] = threading.RLock()
    _is_set_up: bool = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the tool does; ``async def`` or ``def``. A plain ``def`` runs in a thread, so it may block."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def setup(self) -> None:
        """Called once, before the first call: the place for what is slow to make."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Checks the arguments and calls ``forward``. Gives a coroutine if ``is_async``.

        Raises:
            TypeError: an argument is missing, unknown or of the wrong type.
        """
        bound = self.check_arguments(*args, **kwargs)
        self._set_up_once()
        return self.forward(*bound.args, **bound.kwargs)

    def check_arguments(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """The arguments as ``forward`` is given them.

        Raises:
            TypeError: one is missing, unknown or of the wrong type.
        """
        return checked_arguments(self.name, self.__signature__, self.inputs, args, kwargs)

    def _set_up_once(self) -> None:
        if not self._is_set_up:
            with self._setup_lock:  # tools are called from several threads
                if not self._is_set_up:
                    self.setup()
                    self._is_set_up = True

    def to_code_prompt(self) -> str:
        """``def name(arg: type) -> type:`` with its docstring, as the model is shown it."""
        return code_prompt(self.name, self.__signature__, self.description, self.inputs, self.output_type, self.returns)

    def _complete(self) -> None:
        """Checks the definition and reads the signature of ``forward``."""
        self._check_texts()
        self._check_inputs()
        self.__signature__ = hinted_signature(self.name, self.forward)
        self.is_async = inspect.iscoroutinefunction(self.forward)
        said, taken = sorted(self.inputs), sorted(self.__signature__.parameters)
        if said != taken:
            raise ToolError(f"tool {self.name}: 'inputs' names {said} and forward() takes {taken}; make them the same")

    def _check_texts(self) -> None:
        for attribute in ("name", "description", "output_type"):
            value = getattr(self, attribute, None)
            if not isinstance(value, str) or not value.strip():
                raise ToolError(f"{type(self).__name__}: set '{attribute}' to a text, not {value!r}")
        if not self.name.isidentifier() or keyword.iskeyword(self.name):
            raise ToolError(f"tool {self.name!r}: its name must be a Python identifier, as code calls it by it")
        if self.name in RESERVED_NAMES:
            raise ToolError(f"tool {self.name!r}: the sandbox has a function of that name; choose another")
        if self.output_type not in TYPE_NAMES:
            raise ToolError(f"tool {self.name}: output_type {self.output_type!r} is none of {sorted(TYPE_NAMES)}")

    def _check_inputs(self) -> None:
        inputs = getattr(self, "inputs", None)
        if not isinstance(inputs, Mapping):
            raise ToolError(f"tool {self.name}: set 'inputs' to a dict from argument to schema ({{}} for none)")
        for argument, schema in inputs.items():
            _check_input(f"tool {self.name}: inputs[{argument!r}]", schema)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}{self.__signature__})"


def _check_input(place: str, schema: Any) -> None:
    if not isinstance(schema, Mapping) or not isinstance(schema.get("description"), str):
        raise ToolError(f"{place} must be a dict with 'type' and 'description'")
    if "anyOf" in schema:
        return
    names = schema.get("type")
    names = names if isinstance(names, list) else [names]
    if not names or not all(isinstance(name, str) and name in TYPE_NAMES for name in names):
        raise ToolError(f"{place}: type {schema.get('type')!r} is none of {sorted(TYPE_NAMES)}")


class FunctionTool(Tool):
    """A tool made of a function by ``@tool``. Calling it calls the function."""

    def __init__(
        self, function: Callable[..., Any], schema: FunctionSchema, expose_errors: bool, timeout: float | None
    ) -> None:
        self.name = schema.name
        self.description = schema.description
        self.inputs = schema.inputs
        self.output_type = schema.output_type
        self.returns = schema.returns
        self.expose_errors = expose_errors
        self.timeout = timeout
        self.forward = function  # type: ignore[method-assign]
        functools.update_wrapper(self, function, updated=())

    def _complete(self) -> None:
        super()._complete()
        del self.__wrapped__  # type: ignore[attr-defined] # inspect would follow it, past the checks


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *, expose_errors: bool = True, timeout: float | None = None
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(
    function: Callable[..., Any] | None = None, /, *, expose_errors: bool = True, timeout: float | None = None
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Makes a ``Tool`` of a function with type hints and a Google-style docstring. ``@tool`` or ``@tool(…)``.

    Args:
        function: the function, sync or async.
        expose_errors: whether code in the sandbox sees the message of an exception raised in it.
        timeout: seconds for one call from a sandbox; None for the sandbox's ``tool_timeout``.

    Raises:
        ToolError: a hint or a description is missing; the message says which.
    """
    if function is None:
        return functools.partial(_make, expose_errors=expose_errors, timeout=timeout)
    return _make(function, expose_errors=expose_errors, timeout=timeout)


def _make(function: Callable[..., Any], *, expose_errors: bool = True, timeout: float | None = None) -> FunctionTool:
    if not inspect.isfunction(function) and not inspect.ismethod(function):
        raise ToolError(f"@tool takes a function, not {function!r}; for an object, subclass Tool")
    return FunctionTool(function, function_schema(function), expose_errors, timeout)


def as_tool(candidate: Tool | Callable[..., Any]) -> Tool:
    """``candidate`` itself if it is a tool; a plain function becomes one by the rules of ``@tool``.

    The same rules, not softer ones: what the model is told about a function does not depend on how it was handed in.

    Raises:
        ToolError: it is neither, or its definition is wrong.
    """
    return candidate if isinstance(candidate, Tool) else _make(candidate)
