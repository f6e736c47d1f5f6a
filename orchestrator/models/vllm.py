"""``VLLMModel``: a model that vLLM runs in this process. https://docs.vllm.ai/en/latest/api/vllm/"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.models.asked import Asked
from orchestrator.models.chat_template import ChatTemplate
from orchestrator.models.local import LocalModel, required
from orchestrator.models.model import TokenUsage
from orchestrator.models.worker import Output


class VLLMModel(LocalModel):
    """A chat model that vLLM runs. For many agents at once, run its server instead, and use ``OpenAIServerModel``.

    Written after the library's documentation and never run with it: no test has it.

    It is loaded at once, which may take minutes; in a coroutine, make it with ``asyncio.to_thread``. Calls of tools
    are in the text of the reply, in the model's own form.

    Args:
        model_id: its name on the hub, or a folder.
        model_kwargs: further arguments of ``vllm.LLM``, such as ``max_model_len=8192``.
        apply_chat_template_kwargs: further arguments of ``apply_chat_template``, such as ``enable_thinking=False``.
        parameters: further arguments of ``vllm.SamplingParams``; ``temperature`` is 0 and ``max_tokens`` 4096 unless
            given.

    Raises:
        ConfigError: vLLM is not installed, there is no such model, or it is no chat model.
    """

    def __init__(
        self,
        model_id: str,
        model_kwargs: Mapping[str, Any] | None = None,
        apply_chat_template_kwargs: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> None:
        self._vllm = required("vllm", "vllm")
        self._sampling = required("vllm.sampling_params", "vllm")
        super().__init__(model_id)
        self._parameters = {"temperature": 0.0, "max_tokens": 4096, **parameters}
        self._requests = count()
        self._llm = self._load(lambda: self._vllm.LLM(model=model_id, **(model_kwargs or {})))
        self._template = ChatTemplate(model_id, self._llm.get_tokenizer(), apply_chat_template_kwargs)

    def _check(self, asked: Asked) -> None:
        if asked.response_format is not None:
            _constraint(asked.response_format)

    def _write(self, asked: Asked, output: Output) -> None:
        prompt = list(self._template.prompt(asked.messages, asked.tools, return_dict=False))
        engine, request = self._llm.llm_engine, f"cellblock-{next(self._requests)}"
        written, ended = 0, False
        engine.add_request(request, {"prompt_token_ids": prompt}, self._params(asked))
        try:
            # One step of the engine at a time, instead of LLM.generate, which cannot be cancelled.
            while not ended and not output.over:
                for made in engine.step():
                    if made.request_id == request:  # a cancelled one may still have something to say
                        output.text(made.outputs[0].text)
                        written += len(made.outputs[0].token_ids)
                        ended = made.finished
        finally:
            if not ended:
                engine.abort_request([request])
        output.end(TokenUsage(len(prompt), written))

    def _params(self, asked: Asked) -> Any:
        more: dict[str, Any] = {"output_kind": self._sampling.RequestOutputKind.DELTA}
        if asked.tools:  # calls are marked with special tokens by some models
            more["skip_special_tokens"] = False
        if asked.response_format is not None:
            constraint = self._sampling.StructuredOutputsParams(**_constraint(asked.response_format))
            more["structured_outputs"] = constraint
        return self._sampling.SamplingParams(**{**self._parameters, **more})


def _constraint(response_format: Mapping[str, Any]) -> dict[str, Any]:
    match response_format:
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return {"json": schema}
        case {"type": "json_object"}:
            return {"json_object": True}
        case _:
            raise ConfigError(f"response_format must be of type json_schema or json_object, not {response_format!r}")
