"""Host tools: the ``@tool`` decorator and the ``Tool`` class.

A tool runs on the host. Agent code in the sandbox sees a plain function of the same name, signature and docstring; a
call travels to the host, its arguments are checked here, and the result travels back as data.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, overload

from orchestrator.errors import ToolError
from orchestrator.made_with import MadeWith
from orchestrator.tools.arguments import checked_arguments
from orchestrator.tools.as_made import AsMade
from orchestrator.tools.conversion import needs_decoding
from orchestrator.tools.definition import check_agreement, check_inputs, check_texts, signature_of_inputs
from orchestrator.tools.json_schema import parameters_schema
from orchestrator.tools.prompts import code_prompt, tool_calling_prompt, with_schema
from orchestrator.tools.schema import FunctionSchema, Schema, function_schema, hinted_signature

RESERVED_NAMES = frozenset({"final_answer"})  # the sandbox's own function that ends a run


class _Checked(ABCMeta):
    """Checks a definition once ``__init__`` is done: a subclass may set its name there, and forget ``super()``."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        made._complete()
        made._as_made = AsMade.of(made)
        return made


class Tool(MadeWith, metaclass=_Checked):
    """A function on the host that agent code may call. Subclass it as in smolagents, or use ``@tool``.

    Attributes:
        name: what the code calls; a Python identifier.
        description: what it does; the model chooses by it.
        inputs: argument -> ``{"type": …, "description": …}``, the types as in JSON schema, or ``any``.
        output_type: the type of what it returns, in the same words.
        output_schema: JSON schema of what it returns, shown to the model; results are not checked by it.
        skip_forward_signature_validation: True for a ``forward`` that takes ``**kwargs``: ``inputs`` alone says what
            the arguments are, and they are passed by name.
        expose_errors: whether code in the sandbox sees the message of an exception raised here. False when messages
            may tell secrets.
        returns: what it returns, in words; may be empty.
        is_async: whether a call gives something to await.
        timeout: seconds for one call from a sandbox; None for the sandbox's ``tool_timeout``.
        stops_clock: the time of a call does not count as the code's; the tool has its own bounds. Then a ``timeout`` of
            None is no limit.
    """

    name: str
    description: str
    inputs: Mapping[str, Schema]
    output_type: str
    output_schema: Mapping[str, Any] | None = None
    skip_forward_signature_validation: bool = False
    expose_errors: bool = True
    returns: str = ""
    is_async: bool = False
    timeout: float | None = None
    stops_clock: bool = False
    __signature__: inspect.Signature
    _setup_lock: ClassVar[threading.RLock] = threading.RLock()
    _is_set_up: bool = False
    _decodes: bool = False
    _ends_a_run: ClassVar[bool] = False
    _as_made: AsMade | None = None

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """What the tool does; ``async def`` or ``def``. A plain ``def`` runs in a thread, so it may block.

        Arguments arrive as its hints say: a dataclass as an instance, an Enum as its member, ``PIL.Image.Image`` as
        an image of Pillow. A picture or sound without such a hint arrives as ``AgentImage`` or ``AgentAudio``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def setup(self) -> None:
        """Called once, before the first call: the place for what is slow to make.

        No ``async def``. Of an async tool it is called on the event loop: it may make what belongs to that, and must
        not block.
        """

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # an argument may be named self
        """Checks the arguments and calls ``forward``. Gives a coroutine if ``is_async``.

        A single dict whose keys are names of arguments stands for these.

        Raises:
            TypeError: an argument is missing, unknown or of the wrong type.
            ValueError: a dataclass among the arguments refuses its fields.
        """
        if self.is_async and self._decodes:
            return self._call_decoded(args, kwargs)
        return self._forward(self.check_arguments(*args, **kwargs))

    async def _call_decoded(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The event loop does not wait while pictures are decoded."""
        return await self._forward(await asyncio.to_thread(self.check_arguments, *args, **kwargs))

    def _forward(self, bound: inspect.BoundArguments) -> Any:
        self._set_up_once()
        if self.skip_forward_signature_validation:
            return self.forward(**bound.arguments)
        return self.forward(*bound.args, **bound.kwargs)

    def check_arguments(self, /, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        """The arguments as ``forward`` is given them.

        Raises:
            TypeError: one is missing, unknown or of the wrong type.
            ValueError: a dataclass among them refuses its fields.
        """
        return checked_arguments(self.name, self.__signature__, self.inputs, args, kwargs)

    def _set_up_once(self) -> None:
        if not self._is_set_up:
            with self._setup_lock:  # tools are called from several threads
                if not self._is_set_up:
                    before = dict(vars(self))
                    self.setup()
                    self._is_set_up = True
                    self._as_made = self._as_made and self._as_made.after_setup(before, vars(self))

    def to_code_prompt(self) -> str:
        """``def name(arg: type) -> type:`` with its docstring, as the model is shown it."""
        returns = with_schema(self.returns, self.output_schema)
        return code_prompt(self.name, self.__signature__, self.description, self.inputs, self.output_type, returns)

    def to_tool_calling_prompt(self) -> str:
        """Name, description and arguments in words, for a model that is told of tools in its prompt."""
        returns = with_schema(self.returns, self.output_schema)
        return tool_calling_prompt(self.name, self.description, self.inputs, self.output_type, returns)

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments as a JSON schema of type ``object``, as models' endpoints take it."""
        return parameters_schema(self)

    def _complete(self) -> None:
        """Checks the definition and reads the signature of ``forward``."""
        check_texts(self)
        if self.name in RESERVED_NAMES and not self._ends_a_run:
            raise ToolError(f"tool {self.name!r}: the sandbox has a function of that name; choose another")
        if inspect.iscoroutinefunction(self.setup):
            raise ToolError(f"tool {self.name}: setup() cannot be async; what has to be awaited is made in forward()")
        check_inputs(self.name, getattr(self, "inputs", None))
        self.is_async = inspect.iscoroutinefunction(self.forward)
        if self.skip_forward_signature_validation:
            self.__signature__ = signature_of_inputs(self.inputs)
        else:
            self.__signature__ = hinted_signature(self.name, self.forward)
            check_agreement(self.name, self.inputs, self.__signature__)
        hints = (parameter.annotation for parameter in self.__signature__.parameters.values())
        self._decodes = any(map(needs_decoding, hints))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}{self.__signature__})"

    # Tools from elsewhere, and to elsewhere. What they do, and need to be installed for it, is in modules of their own.

    @staticmethod
    def from_langchain(langchain_tool: Any) -> Tool:
        """A tool of LangChain; see ``orchestrator.tools.langchain``."""
        from orchestrator.tools.langchain import from_langchain

        return from_langchain(langchain_tool)

    @staticmethod
    def from_gradio(gradio_tool: Any) -> Tool:
        """A tool as in the gradio_tools package; see ``orchestrator.tools.gradio``."""
        from orchestrator.tools.gradio import from_gradio

        return from_gradio(gradio_tool)

    @staticmethod
    def from_space(
        space_id: str, name: str, description: str = "", api_name: str | None = None, token: str | None = None
    ) -> Tool:
        """One endpoint of a Gradio Space; see ``orchestrator.tools.gradio``."""
        from orchestrator.tools.gradio import from_space

        return from_space(space_id, name, description, api_name, token)

    @staticmethod
    def from_hub(repo_id: str, token: str | None = None, trust_remote_code: bool = False, **kwargs: Any) -> Tool:
        """The tool in a Space's ``tool.py``. Its code runs on the host; see ``orchestrator.tools.hub``."""
        from orchestrator.tools.hub import from_hub

        return from_hub(repo_id, token, trust_remote_code, **kwargs)

    @staticmethod
    def from_code(code: str, trust_remote_code: bool = False, **kwargs: Any) -> Tool:
        """The tool that ``code`` defines, which runs on the host; see ``orchestrator.tools.loading``."""
        from orchestrator.tools.loading import from_code

        return from_code(code, trust_remote_code, **kwargs)

    def save(self, output_dir: str, tool_file_name: str = "tool", make_gradio_app: bool = True) -> None:
        """Writes it into a folder, as code; see ``orchestrator.tools.hub`` and ``orchestrator.tools.source``."""
        from orchestrator.tools.hub import save

        save(self, output_dir, tool_file_name, make_gradio_app)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str = "Upload tool",
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Saves it as a Space of the hub, and gives the commit's address; see ``orchestrator.tools.hub``."""
        from orchestrator.tools.hub import push_to_hub

        return push_to_hub(self, repo_id, commit_message, private, token, create_pr)


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
