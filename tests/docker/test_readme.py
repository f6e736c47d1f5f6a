"""README.md taken at its word: its programs run and print what stands below them, its tables agree with the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from executor_image import frames
from orchestrator import Config, Limits, State, Status
from orchestrator.audit import AuditLog, chain, records, verify
from orchestrator.config import parse_size
from orchestrator.policy import DEFAULT_AUTHORIZED_IMPORTS
from orchestrator.sandbox.leftovers import list_containers

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
STATE = (ROOT / "docs" / "state.md").read_text("utf-8")
AUDIT = (ROOT / "docs" / "audit.md").read_text("utf-8")
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text("utf-8")
SECONDS = 60  # for one program
# A program of the README: marked by a comment above it, with what it prints below it.
PROGRAM = re.compile(
    r"<!-- run by tests/docker/test_readme\.py[^>]*-->\n```python\n(.*?)```\n```text\n(.*?)```\n", re.S
)
# What the model says in the agent's program.
REPLIES = (
    'Thought: I ask the tool.\n<code>\ntotal = minutes("drinks") + minutes("music")\nprint(total)\n</code>',
    "Thought: That is the answer.\n<code>\nfinal_answer(total)\n</code>",
)


@contextmanager
def chat_server(replies: tuple[str, ...]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that speaks chat completions: its base URL, and the requests it got."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"role": "assistant", "content": replies[len(requests) - 1]}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(program: str, folder: Path, env: Mapping[str, str]) -> str:
    """What the program prints, run as a user would: a process of its own, in a folder of its own."""
    file = folder / "example.py"
    file.write_text(program, "utf-8")
    process = subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **env},
    )
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    left = [found for found in list_containers(Config.load()) if found.owner.startswith(f"{process.pid}:")]
    assert left == []
    return out


def program_with(words: str) -> tuple[str, str]:
    """The README's program with ``words`` in it, and what it says to print."""
    (found,) = [(code, printed) for code, printed in PROGRAM.findall(README) if words in code]
    return found


def table(text: str, first_heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called so, without the code marks."""
    _, _, rest = text.partition(f"\n| {first_heading} |")
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


# ------------------------------------------------------------------------------------------------------- programs


def test_every_python_block_is_a_program_of_these_tests() -> None:
    assert len(PROGRAM.findall(README)) == README.count("```python\n") == 3


def test_the_sandbox_program_prints_what_the_readme_says(config: Config, tmp_path: Path) -> None:
    code, printed = program_with("with Sandbox(")
    assert run(code, tmp_path, {}) == printed


def test_the_program_about_tools_prints_what_the_readme_says(config: Config, tmp_path: Path) -> None:
    code, printed = program_with("def approve(")
    assert run(code, tmp_path, {}) == printed
    assert verify(tmp_path / "audit.jsonl").holds


def test_the_documentation_of_the_audit_log_names_every_kind_of_record_and_its_format(
    config: Config, tmp_path: Path
) -> None:
    kinds = {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        for name, thing in vars(records).items()
        if isinstance(thing, type) and issubclass(thing, records.Happening) and thing is not records.Happening
    }
    named = {kind for row in table(AUDIT, "kind") for kind in row[0].split(", ")}
    assert named == kinds | {chain.RECOVERED}
    AuditLog(tmp_path / "log").append("k", "s", {"ü": ["x", 1, None]})
    (check,) = re.findall(r"```python\n(.*?)```", AUDIT, re.S)
    exec(check, {"line": (tmp_path / "log").read_text()})
    with pytest.raises(AssertionError):
        exec(check, {"line": (tmp_path / "log").read_text().replace('"s"', '"t"')})


def test_the_agent_program_prints_what_the_readme_says(config: Config, tmp_path: Path) -> None:
    code, printed = program_with("with CodeAgent(")
    with chat_server(REPLIES) as (url, requests):
        out = run(code, tmp_path, {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-of-nobody"})
    assert out == printed
    first, second = requests
    assert first["model"] == "gpt-5-mini"
    assert "def minutes(job: str) -> int" in first["messages"][0]["content"]
    assert "Execution logs:\n75" in second["messages"][-1]["content"]


def test_the_program_about_states_runs(config: Config, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", STATE, re.S)
    assert "'clean data' (execution 1)" in run(code, tmp_path, {})


# --------------------------------------------------------------------------------------------------------- tables


def test_the_settings_file_of_the_readme_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.S)
    (tmp_path / "cellblock.toml").write_text(text)
    config = Config.load(tmp_path / "cellblock.toml", env={})
    assert (config.timeout, config.limits.memory) == (10, "256m")


def test_the_settings_table_has_every_setting_with_its_default() -> None:
    rows = {name: (variable, default) for name, variable, default, _ in table(README, "setting")}
    names = [f.name for f in fields(Config) if f.name != "limits"] + [f"limits.{f.name}" for f in fields(Limits)]
    assert list(rows) == names
    assert [variable for variable, _ in rows.values()] == [
        f"CELLBLOCK_{name.replace('.', '_').upper()}" for name in names
    ]
    stated = {variable: default for variable, default in rows.values() if default}
    assert Config.load(env=stated) == Config()


def test_the_status_table_has_every_status_and_state() -> None:
    rows = table(README, "status")
    assert [status for status, _, _ in rows] == [str(status) for status in Status]
    assert re.findall(r"^- `(\w+)`: ", README, re.M) == [str(state) for state in State]


def test_the_default_imports_are_those_of_the_policy() -> None:
    (names,) = re.findall(r"Importable without asking: (.*)\.\n", README)
    assert set(names.split(", ")) == set(DEFAULT_AUTHORIZED_IMPORTS) - {"collections.abc"}


def test_the_frames_table_of_the_protocol_is_that_of_the_code() -> None:
    legal = frames.TO_RUNNER | frames.FROM_RUNNER | frames.TO_WARDEN | frames.FROM_WARDEN
    named = {
        number: name
        for name, number in vars(frames).items()
        if name.isupper()
        and isinstance(number, int)
        and number in legal
        and not name.startswith(("MAX_", "FORK_", "OUTCOME_", "NONCE_"))
    }
    written = {int(number): (name, longest) for number, name, _, longest, _ in table(PROTOCOL, "type")}
    assert {number: name for number, (name, _) in written.items()} == named
    for number, (_, longest) in written.items():
        assert parse_size(longest) == legal[number][1]
