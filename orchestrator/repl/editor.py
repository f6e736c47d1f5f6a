"""The line editor: prompt_toolkit, taught when a statement is complete. The only part that needs it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus, has_selection
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.output import create_output
from pygments.lexers.python import PythonLexer

from orchestrator.repl import history
from orchestrator.repl.statements import INDENT, indentation, is_complete

_CONTINUED = "... "
_ENTER = frozenset({Keys.ControlM, Keys.ControlJ})


class Editor:
    """Reads statements and commands from the terminal."""

    def __init__(self, path: Path) -> None:
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            lexer=PygmentsLexer(PythonLexer),
            history=_History(path),
            key_bindings=_bindings(),
            prompt_continuation=_continuation,
            complete_while_typing=False,
            enable_suspend=True,
            reserve_space_for_menu=0,
            output=create_output(always_prefer_tty=True),  # on standard error, if standard output goes elsewhere
        )

    async def read(self, prompt: str) -> str:
        """What is typed next.

        Raises:
            KeyboardInterrupt: Ctrl-C; what had been typed is gone.
            EOFError: Ctrl-D on an empty line, or the terminal is gone.
        """
        message: StyleAndTextTuples = [("ansigreen", prompt)]
        return await self._session.prompt_async(message, handle_sigint=False, set_exception_handler=False)


class _History(History):
    """The history file, as prompt_toolkit wants it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        return reversed(history.load(self._path))

    def store_string(self, string: str) -> None:
        history.append(self._path, string)


def _continuation(width: int, _line: int, wraps: int) -> StyleAndTextTuples:
    return [("ansigreen", (" " * len(_CONTINUED) if wraps else _CONTINUED).rjust(width))]


@Condition
def _in_margin() -> bool:
    """Nothing but spaces before the cursor, and at least one."""
    before = get_app().current_buffer.document.current_line_before_cursor
    return bool(before) and before.isspace()


def _bindings() -> KeyBindings:
    bindings = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)
    bindings.add("enter", filter=typing)(_enter)
    bindings.add("tab", filter=typing)(_indent)
    bindings.add("backspace", filter=typing & _in_margin & ~has_selection)(_dedent)
    return bindings


def _enter(event: KeyPressEvent) -> None:
    """Runs what is complete, if the cursor is on its last line; else begins a new line."""
    buffer = event.current_buffer
    document = buffer.document
    if is_complete(document.text) and "\n" not in document.text_after_cursor.rstrip():
        buffer.document = Document(document.text.rstrip())
        buffer.validate_and_handle()
        return
    margin = "" if _is_pasted(event) else indentation(document.text_before_cursor)
    buffer.insert_text(f"\n{margin}")


def _is_pasted(event: KeyPressEvent) -> bool:
    """The keys at hand are lines with their own indentation, from a terminal that does not mark a paste as one."""
    waiting = [press.key for press in event.key_processor.input_queue]
    return waiting[:1] == [" "] or not _ENTER.isdisjoint(waiting)


def _indent(event: KeyPressEvent) -> None:
    column = event.current_buffer.document.cursor_position_col
    event.current_buffer.insert_text(" " * (INDENT - column % INDENT))


def _dedent(event: KeyPressEvent) -> None:
    column = event.current_buffer.document.cursor_position_col
    event.current_buffer.delete_before_cursor((column - 1) % INDENT + 1)
