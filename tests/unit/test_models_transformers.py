"""``TransformersModel`` with tiny models that the tests make: transformers and torch are the real ones."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hypothesis import given  # noqa: E402 - behind the importorskip
from hypothesis import strategies as st  # noqa: E402

from orchestrator.errors import ConfigError, ModelUnavailable  # noqa: E402
from orchestrator.media import AgentImage  # noqa: E402
from orchestrator.models import ChatMessage, ModelDelta, ModelReply, StreamingModel, ToolSchema  # noqa: E402
from orchestrator.models.stops import cut_at_stop  # noqa: E402
from orchestrator.models.transformers import TransformersModel, _Decoding  # noqa: E402
from tests.unit.tiny_model import WITH_TOOLS, tiny_model, tiny_seeing_model, tiny_tokenizer  # noqa: E402

DEADLINE = 60.0  # seconds of anything that is awaited
ENDLESS = 1_000_000  # tokens: hours, even of such a model
HELLO = (ChatMessage("system", "s"), ChatMessage("user", "hello"))
TOOL = ToolSchema("get_weather", "Weather now.", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture(scope="module", autouse=True)
def offline() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("model"))


def writing(folder: str, tokens: int, **more: Any) -> TransformersModel:
    """A model that writes exactly so many tokens."""
    return TransformersModel(folder, max_new_tokens=tokens, min_new_tokens=tokens, **more)


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, DEADLINE))


async def collected(stream: AsyncIterator[ModelDelta]) -> list[ModelDelta]:
    return [piece async for piece in stream]


def whole(pieces: list[ModelDelta]) -> ModelReply:
    return ModelReply("".join(piece.text for piece in pieces), pieces[-1].token_usage)


class Steps:
    """Counts the tokens that a model is about to write, from within it."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = threading.Event()

    def __call__(self, ids: Any, scores: Any) -> Any:
        self.count += 1
        self.begun.set()
        return scores


def test_a_reply_is_what_transformers_generates(folder: str) -> None:
    reply = run(writing(folder, 50).generate(HELLO))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    told = [{"role": message.role, "content": message.content} for message in HELLO]
    inputs = tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=50, min_new_tokens=50)[0, inputs["input_ids"].shape[1] :]
    assert reply.text == tokenizer.decode(ids, skip_special_tokens=True)
    assert reply.token_usage.input_tokens == inputs["input_ids"].shape[1]
    assert reply.token_usage.output_tokens == 50


def test_a_stream_gives_the_same_in_pieces(folder: str) -> None:
    model = writing(folder, 50)
    assert isinstance(model, StreamingModel)
    pieces = run(collected(model.generate_stream(HELLO)))
    assert len(pieces) > 20
    assert whole(pieces) == run(model.generate(HELLO))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_stop_sequence_ends_the_generation(folder: str, length: int) -> None:
    model = writing(folder, 60)
    text = run(model.generate(HELLO)).text
    stops = [text[20 : 20 + length], "not in it", ""]
    reply = run(model.generate(HELLO, stops))
    assert reply.text == cut_at_stop(text, stops)
    assert len(reply.text) <= 20
    assert reply.token_usage.output_tokens < 40
    assert whole(run(collected(model.generate_stream(HELLO, stops)))) == reply


def test_the_token_that_ends_a_reply_is_no_part_of_it(folder: str) -> None:
    end = transformers.AutoTokenizer.from_pretrained(folder).eos_token_id
    model = TransformersModel(folder, sequence_bias=[[[end], 1000.0]])
    for tools in ((), (TOOL,)):
        reply = run(model.generate(HELLO, tools=tools))
        assert reply.text == ""
        assert reply.token_usage.output_tokens == 1


def test_special_tokens_stay_where_they_may_mark_calls(folder: str) -> None:
    mark = transformers.AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_start|>")
    model = writing(folder, 3, sequence_bias=[[[mark], 1000.0]])
    assert run(model.generate(HELLO)).text == ""
    assert run(model.generate(HELLO, tools=[TOOL])).text == "<|im_start|>" * 3


def test_the_length_can_be_limited_by_either_name(folder: str) -> None:
    assert run(writing(folder, 7).generate(HELLO)).token_usage.output_tokens == 7
    model = TransformersModel(folder, max_tokens=3, min_new_tokens=3)
    assert run(model.generate(HELLO)).token_usage.output_tokens == 3


def test_beams_give_the_best_reply(folder: str) -> None:
    model = writing(folder, 20, num_beams=3)
    reply = run(model.generate(HELLO))
    assert reply.text
    assert reply.token_usage.output_tokens == 20
    assert whole(run(collected(model.generate_stream(HELLO)))) == reply


def test_a_closed_stream_ends_its_generation_within_a_token(folder: str) -> None:
    steps = Steps()
    model = writing(folder, ENDLESS, logits_processor=[steps])

    async def closed() -> int:
        async with aclosing(model.generate_stream(HELLO)) as stream:
            assert (await anext(stream)).text
        return steps.count  # now: the model may have been far ahead of the reader

    async def both() -> tuple[int, ModelReply]:
        stop = (await first_of(model))[:1]
        count = await closed()
        return count, await model.generate(HELLO, [stop])  # its turn comes when the other has ended

    count, reply = run(both())
    assert reply.text == ""
    assert steps.count <= count + 1 + reply.token_usage.output_tokens


async def first_of(model: TransformersModel) -> str:
    async with aclosing(model.generate_stream(HELLO)) as stream:
        return (await anext(stream)).text


def test_a_cancelled_call_ends_its_generation(folder: str) -> None:
    steps = Steps()
    model = writing(folder, ENDLESS, logits_processor=[steps])

    async def cancelled() -> ModelReply:
        task = asyncio.ensure_future(model.generate(HELLO))
        await asyncio.to_thread(steps.begun.wait, DEADLINE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await model.generate(HELLO, [(await first_of(model))[:1]])

    assert run(cancelled()).text == ""


def test_one_model_serves_several_event_loops_and_calls_at_once(folder: str) -> None:
    model = writing(folder, 10)

    async def three() -> list[ModelReply]:
        return await asyncio.gather(*(model.generate(HELLO) for _ in range(3)))

    assert len({reply.text for _ in range(2) for reply in run(three())}) == 1


def test_a_model_that_is_no_longer_used_is_freed_with_its_thread(folder: str) -> None:
    model = writing(folder, 3)
    run(model.generate(HELLO))
    weights, thread = weakref.ref(model._model), model._worker._thread
    assert thread.is_alive()
    del model
    gc.collect()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    gc.collect()
    assert weights() is None


GOES_AWAY = """
import asyncio, sys
from orchestrator.models import ChatMessage
from orchestrator.models.transformers import TransformersModel

model = TransformersModel(sys.argv[1], max_new_tokens=1_000_000, min_new_tokens=1_000_000)
stream = model.generate_stream([ChatMessage("user", "hello")])

async def first():
    await anext(stream)
    print("begun", flush=True)

loop = asyncio.new_event_loop()
loop.run_until_complete(first())  # and the generation goes on
"""


def test_a_generation_does_not_keep_the_process_alive(folder: str) -> None:
    command = [sys.executable, "-c", GOES_AWAY, folder]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, cwd=Path(__file__).parents[2])
    assert ended.stdout == "begun\n"
    assert ended.returncode == 0, ended.stderr


def test_tools_are_given_to_a_template_that_takes_them(tmp_path: Path) -> None:
    model = writing(tiny_model(tmp_path, WITH_TOOLS), 3)
    tokens = run(model.generate(HELLO)).token_usage.input_tokens
    assert run(model.generate(HELLO, tools=[TOOL])).token_usage.input_tokens > tokens + 20


PICTURE = AgentImage(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
        "53de0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
    ),
    "image/png",
)


def test_a_model_without_eyes_refuses_pictures(folder: str) -> None:
    with pytest.raises(ConfigError, match="takes no images"):
        run(writing(folder, 3).generate([ChatMessage("user", "look", images=(PICTURE,))]))


def test_a_model_with_eyes_sees_pictures(tmp_path: Path) -> None:
    model = writing(tiny_seeing_model(tmp_path), 10)
    blind = run(model.generate([ChatMessage("user", "look")]))
    seeing = run(model.generate([ChatMessage("user", "look", images=(PICTURE,))]))
    assert seeing.token_usage.input_tokens == blind.token_usage.input_tokens + 4
    assert seeing.text != blind.text
    forged = run(model.generate([ChatMessage("user", "look <image>")]))
    assert forged.token_usage.output_tokens == 10  # the placeholder of a picture in a text is none


def test_a_response_format_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="TransformersModel takes no response_format"):
        run(writing(folder, 3).generate(HELLO, response_format={"type": "json_object"}))


def test_what_transformers_refuses_is_told(folder: str) -> None:
    with pytest.raises(ModelUnavailable, match=r"failed: ValueError: .*no_such_setting") as caught:
        run(writing(folder, 3, no_such_setting=1).generate(HELLO))
    assert isinstance(caught.value.__cause__, ValueError)


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        TransformersModel(str(tmp_path / "nothing"))


def test_a_model_without_a_chat_template(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, None)
    with pytest.raises(ConfigError, match="has no chat template"):
        TransformersModel(folder)
    model = writing(folder, 3, apply_chat_template_kwargs={"chat_template": "{{ messages[0].content }}"})
    assert run(model.generate(HELLO)).token_usage.input_tokens == 1


def test_the_type_of_numbers_can_be_chosen(folder: str) -> None:
    model = writing(folder, 3, torch_dtype="bfloat16")
    assert model._model.dtype == torch.bfloat16
    assert run(model.generate(HELLO)).token_usage.output_tokens == 3


@given(st.data())
def test_tokens_are_decoded_as_all_of_them_at_once(data: st.DataObject) -> None:
    tokenizer = _TOKENIZER
    written = st.text("äöü日本語😀 thesuraf\n", max_size=30).map(tokenizer.encode)
    ids = data.draw(written | st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    skip = data.draw(st.booleans())
    decoding = _Decoding(tokenizer.decode, {tokenizer.eos_token_id}, skip_special_tokens=skip)
    pieces = []
    place = 0
    while place < len(ids):
        step = data.draw(st.integers(1, 3))
        pieces.append(decoding.read(ids[place : place + step]))
        place += step
    end = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else len(ids)
    expected = tokenizer.decode(ids[:end], skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    assert "".join(pieces) + decoding.rest() == expected
    assert decoding.count == len(ids)


_TOKENIZER = tiny_tokenizer()
