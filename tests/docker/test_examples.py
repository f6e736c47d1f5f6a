"""The example apps, as processes of their own beside a real service."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import Config
from tests.docker.service_process import SECONDS, ServiceProcess, service_in, steps

pytestmark = pytest.mark.docker
CHAT = Path(__file__).parents[2] / "examples" / "chat.py"
JSON = "application/json"


@pytest.fixture(scope="module")
def service(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with service_in(tmp_path_factory.mktemp("examples")) as running:
        yield running


@pytest.fixture
def page(service: ServiceProcess) -> Iterator[str]:
    """Host and port of the chat."""
    command = [sys.executable, str(CHAT), service.address, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=service.environment) as chat:
        assert chat.stdout
        try:
            yield chat.stdout.readline().strip().removeprefix("http://")
        finally:
            chat.terminate()


def ask(page: str, method: str, path: str, task: str = "", kind: str = JSON, host: str = "") -> tuple[int, str]:
    """Status and body."""
    connection = http.client.HTTPConnection(page, timeout=SECONDS)
    headers = {"Content-Type": kind, "Host": host or page}
    connection.request(method, path, json.dumps({"task": task}), headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def said(page: str, task: str) -> list[tuple[str, str]]:
    status, body = ask(page, "POST", "/ask", task)
    assert status == 200
    return [(line["kind"], line["text"]) for line in map(json.loads, body.splitlines())]


def test_the_chat_page_shows_what_an_agent_does_and_goes_on_from_there(page: str) -> None:
    status, shown = ask(page, "GET", "/")
    assert (status, "<form>" in shown, "innerHTML" in shown) == (200, True, False)
    first = said(page, steps("x = 20\nprint('<b>thinking')", "final_answer(x)"))
    assert first == [("output", "<b>thinking\n"), ("answer", "20")]
    assert said(page, steps("final_answer(x + 1)")) == [("answer", "21")]
    ((kind, text),) = said(page, " ")
    assert (kind, "a task is a text" in text) == ("error", True)


def test_the_chat_page_is_not_for_pages_of_other_sites(page: str) -> None:
    assert ask(page, "POST", "/ask", "task", kind="text/plain")[0] == 403
    assert ask(page, "POST", "/ask", "task", host="evil.example")[0] == 403
