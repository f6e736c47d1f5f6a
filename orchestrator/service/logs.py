"""The service's log: a JSON object a line, with the ids of the run and the sandbox that it is about, and no secrets.

What is logged may quote containers, models and the requests of strangers: each part is bounded, each line is one line,
and what looks like a credential is taken out, as are the values of the environment's own.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from orchestrator.credentials import redacted, secret_values
from orchestrator.errors import ServiceError
from orchestrator.sanitise import in_words
from orchestrator.service.app_tools import place

MAX_FILE = 10 << 20  # bytes of one file, about a day of a busy service
KEPT_FILES = 4  # older ones
MAX_MESSAGE = 8 << 10  # characters; what is longer has been quoted from somewhere
MAX_ERROR = 16 << 10  # characters of a traceback, its end: there it says what happened
_READ = 8  # times as much is looked at for secrets, so that none is cut in two and no longer looks like one
_OURS = "orchestrator"


@contextmanager
def logging_to(path: Path, level: int = logging.INFO, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Until the end of the block all logs of this process go to ``path``.

    Args:
        path: of the file, which nobody else may read; older ones are beside it, as ``path.1`` and so on.
        level: of what this package logs; of others it is WARNING, because they log requests with their headers below.
        env: whose secrets are taken out, besides what looks like one; by default the process's environment.

    Raises:
        ServiceError: the file cannot be made or written.
    """
    known = secret_values(os.environ if env is None else env)
    try:
        handler = _File(path, maxBytes=MAX_FILE, backupCount=KEPT_FILES, encoding="ascii")
    except OSError as error:
        raise ServiceError(f"the log {path} cannot be written: {error.strerror}") from None
    handler.setFormatter(JsonLines(known))
    root, ours = logging.getLogger(), logging.getLogger(_OURS)
    before = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    ours.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        ours.setLevel(before[1])
        handler.close()


class JsonLines(logging.Formatter):
    """Records as lines.

    Args:
        known: secrets that are taken out wherever they stand.
    """

    def __init__(self, known: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._known = known

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII, without its end."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._clean(_message(record))[:MAX_MESSAGE],
        }
        here = place.get()
        line |= {name: value for name, value in (("run", here.run), ("sandbox", here.sandbox)) if value}
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1]))
            line["error"] = self._clean(text, from_end=True)[-MAX_ERROR:]
        return json.dumps(line)

    def _clean(self, text: str, *, from_end: bool = False) -> str:
        most = _READ * (MAX_ERROR if from_end else MAX_MESSAGE)
        return redacted(text[-most:] if from_end else text[:most], self._known)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - arguments that do not fit, or whose repr raises
        return f"{in_words(record.msg, str)} ({type(error).__name__} while its arguments were put in)"


class _File(RotatingFileHandler):
    """Its files are for this user alone. What goes wrong with them is told without what was to be written."""

    _has_failed = False

    def _open(self) -> TextIOWrapper:
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # Nothing is kept back, to fail a second time when it is closed.
        return TextIOWrapper(os.fdopen(file, "ab", buffering=0), encoding=self.encoding, write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:
        """Says once that it could not be written."""
        if not self._has_failed:
            self._has_failed = True
            kind, reason = sys.exc_info()[:2]
            detail = getattr(reason, "strerror", None) or (kind.__name__ if kind else "")
            print(f"cellblock: the log {self.baseFilename} cannot be written: {detail}", file=sys.stderr)
