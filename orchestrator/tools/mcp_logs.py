"""What the mcp package logs of a server, made safe: it quotes what the server sent, as it came."""

from __future__ import annotations

import logging

from orchestrator.sanitise import one_line

MAX_TEXT = 500  # characters of one message
_ABOVE = ("mcp", "client")  # the latter is what its session logs as
_BELOW = ("mcp.client.", "mcp.shared.")


class _Safe(logging.Filter):
    """One line instead of a message and its traceback, whose last lines quote the server, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()[:MAX_TEXT]
        if record.exc_info and (error := record.exc_info[1]) is not None:
            text = f"{text}: {type(error).__name__}: {str(error)[:MAX_TEXT]}"
        record.msg, record.args = one_line(text, MAX_TEXT), None
        record.exc_info = record.exc_text = record.stack_info = None
        return True


_safe = _Safe()
_silent = logging.NullHandler()


def make_logs_safe() -> None:
    """For the program's handlers. Without any, nothing is written: Python would write warnings to standard error.

    Call it once the parts of the package that are used have been imported. Idempotent.
    """
    for name in _ABOVE:
        logging.getLogger(name).addHandler(_silent)
    # A filter is not asked about the records of the loggers below its own.
    for name in [*logging.Logger.manager.loggerDict]:
        if name in _ABOVE or name.startswith(_BELOW):
            logging.getLogger(name).addFilter(_safe)
