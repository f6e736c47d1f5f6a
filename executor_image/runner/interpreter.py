"""Runs one action in the namespace that persists, and says what came of it.

An action is compiled as a notebook cell is: the last expression is its value, ``await`` is allowed at the top level.
"""

from __future__ import annotations

import ast
import builtins
import gc
import io
import json
import linecache
import sys
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from executor_image import frames
from executor_image.runner.imports import USER_FILE, Allowlist, Guard, ImportNotAllowed, check_source
from executor_image.runner.media import png_in
from executor_image.runner.portable import of_class, plain, safe_repr
from executor_image.runner.protowire import chunk
from executor_image.runner.values import decode_pairs, encode_result

_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_CO_COROUTINE = 0x80  # of a code object with a top-level await; see the inspect module
_REHEARSAL = "x = [[i, i + 1] for i in (1, 2)]\n{'x': f'{x}'}"  # no builtins: user code may have replaced them
_collect = gc.collect  # as it is before any user code
_BUILTINS = dict(vars(builtins))  # as they are before any user code
_builtins = builtins.__dict__
_KEPT_SOURCES = 200  # executions whose source can still be shown: each may be 1 MiB of the user's memory
_MAX_FRAMES = 20  # of a traceback; a recursion's thousand equal lines help nobody
_MIME_METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("text/latex", "_repr_latex_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("application/json", "_repr_json_"),
)


class FinalAnswer(BaseException):
    """Ends an action at ``final_answer(value)``; not an Exception, so that ``except Exception`` lets it pass."""


class Interpreter:
    """The user's namespace and the policy on what it may import.

    Attributes:
        functions: the host's tools and ``final_answer``, by name. They are in the namespace at the beginning of each
            action: code that has assigned to such a name would have lost it for good.
    """

    def __init__(self, rules: list[str], on_import: Callable[[], None] = lambda: None) -> None:
        self._allowlist = Allowlist(rules)
        self._guard = Guard(self._allowlist, on_import)
        self._main = types.ModuleType("__main__")
        sys.modules["__main__"] = self._main
        self.functions: dict[str, Any] = {}

    @property
    def namespace(self) -> dict[str, Any]:
        """The variables of user code."""
        return self._main.__dict__

    def run(
        self, number: int, code: bytes, around: Callable[[Callable[[], object]], object], variables: bytes = b""
    ) -> tuple[int, bytes]:
        """Runs ``code``; gives one of OUTCOME_* and a serialised Outcome. ``around`` calls what is the user's.

        ``variables`` is a serialised Pairs that is put into the namespace first.

        Whatever user code raises ends here; only the end of the process gets past.
        """
        name = f"{USER_FILE}{number}>"
        try:
            source = code.decode("utf-8", "surrogatepass")
            # Kept for tracebacks, also of functions that are called executions later.
            # Lines as Python's tokenizer counts them, which str.splitlines does not.
            linecache.cache[name] = (len(source), None, list(io.StringIO(source, newline=None)), name)
            linecache.cache.pop(f"{USER_FILE}{number - _KEPT_SOURCES}>", None)
            outcome = around(lambda: self._act(source, name, variables))
            return frames.OUTCOME_OK, outcome  # type: ignore[return-value]
        except FinalAnswer:
            return frames.OUTCOME_OK, b""
        except ImportNotAllowed as error:
            return frames.OUTCOME_IMPORT_DENIED, _failure(error)
        except BaseException as error:  # noqa: BLE001 — the user's own exceptions, SystemExit and KeyboardInterrupt among them
            return frames.OUTCOME_ERROR, _failure(error)

    def put_back(self) -> None:
        """What the runner itself stands on, as it was before user code; what the code has added stays.

        Uses no builtin before they are back.
        """
        _builtins.update(_BUILTINS)
        self._guard.install()

    def rehearse(self) -> None:
        """Walks the path of an action once, with nothing of the user's, while nobody waits.

        After a fork each page is copied when it is first written to; these are the pages that every action needs.
        """
        if not _builtins_are_ours():  # what user code put in their place may do anything, and here nothing stops it
            return
        with suppress(BaseException):  # what else user code broke, the next action will say
            self._run(_REHEARSAL, "<rehearsal>", {"__builtins__": {}})

    def _act(self, source: str, name: str, variables: bytes) -> bytes:
        self._guard.install()
        try:
            self.namespace.update(self.functions)
            if variables:  # here, as making them may take time and import a library
                self.namespace.update(decode_pairs(memoryview(variables)))
            return self._run(source, name, self.namespace)
        finally:
            _collect()  # what a finalizer does belongs to the execution, and to its time

    def _run(self, source: str, name: str, namespace: dict[str, Any]) -> bytes:
        tree = _parse(source, name)
        if "import" in source:
            check_source(tree, self._allowlist)
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        parts = [compile(tree, name, "exec", _FLAGS, dont_inherit=True)]
        if isinstance(last, ast.Expr):
            parts.append(compile(ast.Expression(last.value), name, "eval", _FLAGS, dont_inherit=True))
        value = _evaluate(parts, namespace)
        return b"" if value is None else _describe(value)


def _builtins_are_ours() -> bool:
    now = builtins.__dict__
    for name, value in _BUILTINS.items():  # noqa: SIM110 — all() is a builtin too
        if now.get(name) is not value and name != "__import__":  # that one is the import guard's
            return False
    return True


def _evaluate(parts: list[types.CodeType], namespace: dict[str, Any]) -> object:
    """Runs the parts one after the other; the value of the last. With a top-level await, all in one event loop."""
    if any(part.co_flags & _CO_COROUTINE for part in parts):
        import asyncio  # slow to import, and only needed here

        return asyncio.run(_evaluate_async(parts, namespace))
    value = None
    for part in parts:
        value = eval(part, namespace)
    return value


async def _evaluate_async(parts: list[types.CodeType], namespace: dict[str, Any]) -> object:
    value = None
    for part in parts:
        value = eval(part, namespace)
        if part.co_flags & _CO_COROUTINE:
            value = await value
    return value


def _parse(source: str, name: str) -> ast.Module:
    try:
        tree: ast.Module = compile(source, name, "exec", _FLAGS | ast.PyCF_ONLY_AST, dont_inherit=True)
        return tree
    except UnicodeEncodeError as error:
        line = source.count("\n", 0, error.start) + 1
        raise SyntaxError(f"line {line} holds a lone surrogate, which is no character") from None
    except (ValueError, MemoryError, RecursionError) as error:  # NUL bytes; nested too deeply
        raise SyntaxError(str(error) or "the code is nested too deeply") from None


def _describe(value: object) -> bytes:
    """Value, text and MIME bundle of the last expression. Runs the user's ``repr``, inside the deadline."""
    text, encoded = safe_repr(value, frames.MAX_TEXT // 4), encode_result(value)
    shown = {"text/plain": _bytes(text), **_displays(value, png_in(encoded))}
    bundle = (chunk(1, chunk(1, mime.encode()), chunk(2, data)) for mime, data in shown.items())
    return chunk(1, encoded) + chunk(2, _bytes(text)) + chunk(3, *bundle)


def _displays(value: object, png: bytes) -> dict[str, bytes]:
    """What of its forms has room. A picture has become a PNG already: it is not stored again, nor in another format."""
    shown: dict[str, bytes] = {}
    room = frames.MAX_OUTCOME - frames.MAX_VALUE - 8 * frames.MAX_TEXT
    for mime, method in _MIME_METHODS:
        if mime == "image/jpeg" and png and "image/png" in shown:
            continue
        data = png if png and mime == "image/png" else _display(value, method)
        if data and len(data) < room:
            shown[mime] = data
            room -= len(data)
    return shown


def _display(value: object, method: str) -> bytes:
    try:
        if not hasattr(type(value), method):
            return b""
        shown = getattr(value, method)()
        if isinstance(shown, (dict, list)):
            shown = json.dumps(shown)
    except Exception:  # noqa: BLE001 — a display method is user code; a value without a picture is still a value
        return b""
    return _bytes(shown) if type(shown) is str else shown if type(shown) is bytes else b""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _failure(error: BaseException) -> bytes:
    """The serialised Outcome of an exception. An exception is a user's object: anything of it may raise or lie."""
    try:
        kind, message, trace = _told(error)
    except BaseException:  # noqa: BLE001 — whatever it raises must not get past the action that raised it
        kind, message, trace = "Exception", "<what was raised cannot be shown>", ""
    return chunk(4, chunk(1, _bytes(kind)), chunk(2, _bytes(message)), chunk(3, _bytes(trace)))


def _told(error: BaseException) -> tuple[str, str, str]:
    try:
        message = plain(str(error))
    except Exception:  # noqa: BLE001 — str of a user's exception is user code
        message = "<the exception's text could not be made>"
    if isinstance(error, MemoryError) and not message:
        message = "the code needs more memory than this sandbox has"
    message = message[: frames.MAX_TEXT // 8]
    kind = of_class(type(error), "__name__")[:200]
    return kind, message, _traceback(error, kind, message)[: frames.MAX_TEXT // 4]


def _traceback(error: BaseException, kind: str, message: str) -> str:
    if isinstance(error, SyntaxError) and str(error.filename or USER_FILE).startswith(USER_FILE):
        return "".join(traceback.format_exception_only(error))
    mine = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(USER_FILE)]
    if len(mine) > _MAX_FRAMES:
        mine = mine[: _MAX_FRAMES // 2] + mine[-_MAX_FRAMES // 2 :]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(mine)] if mine else []
    return "".join([*lines, f"{kind}: {message}\n" if message else f"{kind}\n"])


def end_with(value: bytes, send: Callable[[bytes], None]) -> NoReturn:
    """Sends a final answer and ends the action."""
    send(value)
    raise FinalAnswer
