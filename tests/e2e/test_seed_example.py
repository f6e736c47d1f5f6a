"""The example of the note that this project began with, word for word, and the same task with every model over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import CodeAgent
from orchestrator.demo import SCRIPT, TASK
from tests.unit import chat_server, converse
from tests.unit.chat_server import Answer, ChatServer, completion, serving

pytestmark = pytest.mark.docker
SECONDS = 120

EXAMPLE = '''
from orchestrator import HfApiModel
from orchestrator import CodeAgent

agent = CodeAgent(tools=[], model=HfApiModel(), additional_authorized_imports=['datetime'])

agent.run(
    """
    Alfred needs to prepare for the party. Here are the tasks:
    1. Prepare the drinks - 30 minutes
    2. Decorate the mansion - 60 minutes
    3. Set up the menu - 45 minutes
    4. Prepare the music and playlist - 45 minutes
    
    If we start right now, at what time will the party be ready?
    """
)
'''  # noqa: W293 - as it stands in the note
READY = "the party is ready at"


def test_the_example_of_the_note_word_for_word() -> None:
    with serving(*map(completion, SCRIPT)) as server:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "OPENAI_"))}
        done = subprocess.run(
            [sys.executable, "-c", EXAMPLE],
            env={**kept, "HF_INFERENCE_ENDPOINT": server.address},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # the run is shown on standard error
    assert "180 minutes later" in " ".join(done.stderr.replace("│", " ").split())
    assert "Alfred needs to prepare for the party" in server.bodies[0]["messages"][1]["content"]
    assert len(server.bodies) == len(SCRIPT)


def openai_server(server: ChatServer) -> Any:
    from orchestrator import OpenAIServerModel

    return OpenAIServerModel("m", api_base=server.url, api_key="k")


def azure(server: ChatServer) -> Any:
    from orchestrator import AzureOpenAIServerModel

    return AzureOpenAIServerModel("m", azure_endpoint=server.address, api_key="k", api_version="2024-10-21")


def litellm(server: ChatServer) -> Any:
    from orchestrator import LiteLLMModel

    return LiteLLMModel("openai/m", api_base=server.url, api_key="k")


def inference_client(server: ChatServer) -> Any:
    from orchestrator import InferenceClientModel

    return InferenceClientModel("m", base_url=server.address, token="hf_k")


def router(server: ChatServer) -> Any:
    from orchestrator import LiteLLMRouterModel

    of_one = {"model": "openai/m", "api_base": server.url, "api_key": "k"}
    return LiteLLMRouterModel("m", [{"model_name": "m", "litellm_params": of_one}])


def bedrock(server: ChatServer) -> Any:
    from orchestrator import AmazonBedrockModel

    keys = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "k"}
    settings = {"endpoint_url": server.address, "region_name": "us-east-1", **keys}
    return AmazonBedrockModel("amazon.nova-pro-v1:0", client_kwargs=settings)


def reply_to(model: Callable[[ChatServer], Any], text: str, stream: bool) -> Answer:
    """As that provider's endpoint gives it: whole, or in two pieces."""
    if model is bedrock:
        pieces = (converse.text_piece(text[:20]), converse.text_piece(text[20:]))
        return converse.stream(*pieces, *converse.END) if stream else converse.answer({"text": text})
    return chat_server.stream(text[:20], text[20:]) if stream else completion(text)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [openai_server, azure, litellm, router, inference_client, bedrock])
def test_the_party_with_every_model_over_http(model: Callable[[ChatServer], Any], stream: bool) -> None:
    script = [reply_to(model, reply, stream) for reply in SCRIPT]
    with (
        serving(*script) as server,
        CodeAgent([], model(server), additional_authorized_imports=["datetime"], stream_outputs=stream) as agent,
    ):
        assert READY in agent.run(TASK)
        assert len(server.requests) == len(SCRIPT)
