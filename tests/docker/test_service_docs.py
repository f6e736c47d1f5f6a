"""The README's program that embeds the client, against a service as `make up` starts one."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import Config
from tests.docker.programs import marked, run
from tests.docker.service_process import service_in
from tests.unit.chat_server import Answer, Request, completion

pytestmark = pytest.mark.docker
README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
REPLY = "Thought: I ask.\n<code>\nfinal_answer(f\"{stock('lemon')} lemons, {stock('sugar')} sugar\")\n</code>"


def model(request: Request) -> Answer:
    return completion(REPLY)


def test_the_program_that_embeds_the_client_prints_what_the_readme_says(config: Config, tmp_path: Path) -> None:
    ((code, printed),) = marked(README, "tests/docker/test_service_docs.py")
    with service_in(tmp_path, model) as service:
        assert run(code, tmp_path, {"CELLBLOCK_RUNTIME_DIR": str(service.folder / "run")}) == printed
