"""``MLXModel``: a model that mlx-lm runs in this process, on Apple silicon. https://github.com/ml-explore/mlx-lm"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.models.asked import Asked
from orchestrator.models.chat_template import ChatTemplate
from orchestrator.models.local import LocalModel, required
from orchestrator.models.model import TokenUsage
from orchestrator.models.worker import Output

# The usual names of what mlx-lm's sampler takes.
_SAMPLER = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}


class MLXModel(LocalModel):
    """A chat model that mlx-lm runs.

    Written after the library's documentation and never run with it: no test has it.

    It is loaded at once, which may take minutes; in a coroutine, make it with ``asyncio.to_thread``. Calls of tools
    are in the text of the reply, in the model's own form.

    Args:
        model_id: its name on the hub, or a folder.
        trust_remote_code: run the Python code that comes with the model. It runs here, outside any sandbox.
        load_kwargs: further arguments of ``mlx_lm.load``.
        apply_chat_template_kwargs: further arguments of ``apply_chat_template``, such as ``enable_thinking=False``.
        parameters: ``max_tokens`` of one reply (4096 unless given), ``temperature``, ``top_p``, ``top_k``, ``min_p``,
            and further arguments of ``mlx_lm.stream_generate``.

    Raises:
        ConfigError: mlx-lm is not installed, there is no such model, or it is no chat model.
    """

    def __init__(
        self,
        model_id: str,
        trust_remote_code: bool = False,
        load_kwargs: Mapping[str, Any] | None = None,
        apply_chat_template_kwargs: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(model_id)
        self._parameters = {"max_tokens": 4096, **parameters}
        settings = dict(load_kwargs or {})
        settings["tokenizer_config"] = {"trust_remote_code": trust_remote_code, **settings.get("tokenizer_config", {})}
        if trust_remote_code:
            settings["trust_remote_code"] = True
        self._load(lambda: self._set_up(settings))
        self._template = ChatTemplate(model_id, self._tokenizer, apply_chat_template_kwargs)

    def _set_up(self, settings: Mapping[str, Any]) -> None:
        # Imported in the worker's thread: the streams that MLX makes belong to the thread that makes them.
        # https://github.com/ml-explore/mlx-lm/issues/1181
        self._mlx = required("mlx_lm", "mlx")
        sampler = {_SAMPLER[key]: self._parameters.pop(key) for key in _SAMPLER if key in self._parameters}
        if sampler:
            self._parameters["sampler"] = required("mlx_lm.sample_utils", "mlx").make_sampler(**sampler)
        self._model, self._tokenizer = self._mlx.load(self.model_id, **settings)

    def _write(self, asked: Asked, output: Output) -> None:
        prompt = list(self._template.prompt(asked.messages, asked.tools, return_dict=False))
        written = 0
        for made in self._mlx.stream_generate(self._model, self._tokenizer, prompt, **self._parameters):
            output.text(made.text)
            written = made.generation_tokens
            if output.over:
                break
        output.end(TokenUsage(len(prompt), written))
