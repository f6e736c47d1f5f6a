"""What the models that run in this process have in common."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from orchestrator.errors import CellblockError, ConfigError, ModelUnavailable, missing_extra
from orchestrator.models.asked import Asked, NamedModel
from orchestrator.models.deltas import Joined
from orchestrator.models.failures import reason
from orchestrator.models.model import ModelDelta, ModelReply
from orchestrator.models.worker import Output, Worker

Result = TypeVar("Result")


class LocalModel(NamedModel):
    """A model in this process. Calls of tools are in the text of its replies, as this model writes them.

    Its calls are made in one thread of its own, one after the other. Cancelling a call, or closing a stream, ends the
    generation within a token. A subclass says how a reply is written, in ``_write``; it sets up what that needs with
    ``_load``.
    """

    def __init__(self, model_id: str) -> None:
        super().__init__(model_id)
        self._worker = Worker(f"model {model_id}")

    async def _reply_to(self, asked: Asked) -> ModelReply:
        whole = Joined()
        async with aclosing(self._pieces_for(asked)) as pieces:
            async for piece in pieces:
                whole.add(piece)
        return whole.reply()

    async def _pieces_for(self, asked: Asked) -> AsyncGenerator[ModelDelta, None]:
        self._check(asked)
        stream = self._worker.stream(lambda output: self._reply(asked, output), asked.stop_sequences)
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                yield piece

    def _check(self, asked: Asked) -> None:
        """Raises ``ConfigError`` for what this kind of model cannot do."""
        if asked.response_format is not None:
            raise ConfigError(f"model {self.model_id}: {type(self).__name__} takes no response_format")

    @abstractmethod
    def _write(self, asked: Asked, output: Output) -> None:
        """Writes a reply, in the worker's thread, for as long as it is not ``over``. Anything may be raised."""

    def _reply(self, asked: Asked, output: Output) -> None:
        try:
            self._write(asked, output)
        except CellblockError:
            raise
        except Exception as error:
            raise ModelUnavailable(f"model {self.model_id} failed: {_shown(error)}") from error

    def _load(self, load: Callable[[], Result]) -> Result:
        """What ``load()`` gives in the worker's thread.

        Raises:
            ConfigError: there is no such model, or it cannot be loaded as it is asked for.
        """
        try:
            return self._worker.call(load)
        except CellblockError:
            raise
        except Exception as error:  # whatever the library raises for a wrong name, setting or device
            raise ConfigError(f"model {self.model_id} cannot be loaded: {_shown(error)}") from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r})"


def required(module: str, extra: str) -> Any:
    """The module, imported.

    Raises:
        ConfigError: it is not installed. Names the extra that has it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # What it says is told too, as a library that is installed may lack a part.
        raise ConfigError(f"{missing_extra('this model', module, extra)} ({_shown(error)})") from None


def _shown(error: Exception) -> str:
    """With its kind, as a library's texts alone often say little: ``KeyError: 'x'``."""
    return reason(f"{type(error).__name__}: {error}")
