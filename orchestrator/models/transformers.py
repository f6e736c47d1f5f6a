"""``TransformersModel``: a model of the Hugging Face hub, or of a folder, run by transformers in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from orchestrator.models.asked import Asked
from orchestrator.models.chat_template import ChatTemplate
from orchestrator.models.local import LocalModel, required
from orchestrator.models.model import TokenUsage
from orchestrator.models.worker import Output

# Of ``model_kwargs``, what says where the files are: the tokenizer's are in the same place.
_PLACE = frozenset({"revision", "token", "cache_dir", "local_files_only", "subfolder"})
_INCOMPLETE = "\ufffd"  # what a decoder shows for a character of which only some bytes have come


class TransformersModel(LocalModel):
    """A chat model that transformers runs.

    It is loaded at once, which may take minutes and download much; in a coroutine, make it with ``asyncio.to_thread``.
    What it is told is in the form of its chat template. One that takes tools is given them; the calls are in the text
    of the reply, in the model's own form, and so are the marks around them.

    Args:
        model_id: its name on the hub, or a folder.
        device_map: where the layers go, as transformers takes it (needs ``accelerate``); default: all of them on the
            GPU if there is one, else on the CPU.
        torch_dtype: such as ``"bfloat16"``; default: that of the files.
        trust_remote_code: run the Python code that comes with the model. It runs here, outside any sandbox.
        model_kwargs: further arguments of ``from_pretrained``.
        max_new_tokens: of one reply.
        max_tokens: the same, if given; other models call it so.
        apply_chat_template_kwargs: further arguments of ``apply_chat_template``, such as ``enable_thinking=False``.
        parameters: sent along with every generation, such as ``temperature=0.7, do_sample=True``.

    Raises:
        ConfigError: transformers or torch is not installed, there is no such model, or it is no chat model.
    """

    def __init__(
        self,
        model_id: str,
        device_map: str | dict[str, Any] | None = None,
        torch_dtype: Any = None,
        trust_remote_code: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
        max_new_tokens: int = 4096,
        max_tokens: int | None = None,
        apply_chat_template_kwargs: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> None:
        self._torch = required("torch", "transformers")
        self._transformers = required("transformers", "transformers")
        super().__init__(model_id)
        self._parameters = {"max_new_tokens": max_new_tokens if max_tokens is None else max_tokens, **parameters}
        settings = {**(model_kwargs or {}), "trust_remote_code": trust_remote_code}
        if torch_dtype is not None:
            settings["dtype"] = torch_dtype
        self._load(lambda: self._set_up(settings, device_map))
        self._template = ChatTemplate(model_id, self._processor, apply_chat_template_kwargs, sees=self._sees)

    def _set_up(self, settings: dict[str, Any], device_map: str | dict[str, Any] | None) -> None:
        library, place = self._transformers, {key: settings[key] for key in settings.keys() & _PLACE}
        place["trust_remote_code"] = settings["trust_remote_code"]
        config = library.AutoConfig.from_pretrained(self.model_id, **place)
        self._sees = getattr(config, "vision_config", None) is not None
        kind = library.AutoModelForImageTextToText if self._sees else library.AutoModelForCausalLM
        if device_map is not None:
            settings = {**settings, "device_map": device_map}
        reader = library.AutoProcessor if self._sees else library.AutoTokenizer
        self._processor = reader.from_pretrained(self.model_id, **place)
        self._tokenizer = self._processor.tokenizer if self._sees else self._processor
        self._model = kind.from_pretrained(self.model_id, **settings).eval()
        if device_map is None:
            self._model.to(self._device())
        generation = self._model.generation_config
        ends = generation.eos_token_id if generation.eos_token_id is not None else self._tokenizer.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])

    def _device(self) -> str:
        if self._torch.cuda.is_available():
            return "cuda"
        return "mps" if self._torch.backends.mps.is_available() else "cpu"

    def _write(self, asked: Asked, output: Output) -> None:
        inputs = self._inputs(asked)
        start = inputs["input_ids"].shape[1]
        # Calls are marked with special tokens by some models; without tools they would only be noise in the text.
        tokens = _Decoding(self._tokenizer.decode, self._ends, skip_special_tokens=not asked.tools)

        def is_over(ids: Any, scores: Any, **_: Any) -> Any:
            if len(ids) == 1:  # several are beams: which of them is the reply is known in the end
                output.text(tokens.read(ids[0, start + tokens.count :].tolist()))
            return self._torch.full((len(ids),), output.over, device=ids.device, dtype=self._torch.bool)

        criteria = self._transformers.StoppingCriteriaList([is_over])
        written = self._model.generate(**inputs, **self._parameters, stopping_criteria=criteria)
        ids = getattr(written, "sequences", written)[0, start:].tolist()
        output.text(tokens.read(ids[tokens.count :]) + tokens.rest())
        output.end(TokenUsage(start, len(ids)))

    def _inputs(self, asked: Asked) -> Any:
        inputs = self._template.prompt(asked.messages, asked.tools, return_dict=True, return_tensors="pt")
        return inputs.to(self._model.device, dtype=self._model.dtype) if self._sees else inputs.to(self._model.device)


class _Decoding:
    """Tokens -> text, as they come. Together the pieces are what decoding all tokens at once gives.

    What a token stands for can depend on the one before it, and a character can be spread over several. So a few
    tokens are always decoded anew, and text that ends within a character is held back.
    """

    def __init__(self, decode: Callable[..., str], ends: Collection[int], *, skip_special_tokens: bool) -> None:
        self._decode = decode
        self._ends = ends
        self._skip = skip_special_tokens
        self._ids: list[int] = []
        self._from = 0  # decoding begins here,
        self._known = 0  # and up to here its text has been given
        self._ended = False
        self.count = 0  # of tokens read

    def read(self, ids: Sequence[int]) -> str:
        """The text of these further tokens, up to the first that ends a reply."""
        self.count += len(ids)
        for id in ids:
            self._ended = self._ended or id in self._ends
            if not self._ended:
                self._ids.append(id)
        text = self._new()
        if not text or text.endswith(_INCOMPLETE):
            return ""
        self._from, self._known = self._known, len(self._ids)
        return text

    def rest(self) -> str:
        """What was held back."""
        text, self._known = self._new(), len(self._ids)
        return text

    def _new(self) -> str:
        known = self._text(self._ids[self._from : self._known])
        return self._text(self._ids[self._from :])[len(known) :]

    def _text(self, ids: Sequence[int]) -> str:
        return self._decode(ids, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False)
