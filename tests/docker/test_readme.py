"""README.md taken at its word: its programs run and print what stands below them, its tables agree with the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from executor_image import frames
from orchestrator import Config, Limits, State, Status
from orchestrator.audit import AuditLog, chain, records, verify
from orchestrator.config import parse_size
from orchestrator.policy import DEFAULT_AUTHORIZED_IMPORTS
from tests.docker.programs import asking, marked, run
from tests.unit.chat_server import completion, serving

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
STATE = (ROOT / "docs" / "state.md").read_text("utf-8")
AUDIT = (ROOT / "docs" / "audit.md").read_text("utf-8")
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text("utf-8")
PROGRAMS = marked(README, "tests/docker/test_readme.py")
# What the model says in the agent's program.
REPLIES = (
    'Thought: I ask the tool.\n<code>\ntotal = minutes("drinks") + minutes("music")\nprint(total)\n</code>',
    "Thought: That is the answer.\n<code>\nfinal_answer(total)\n</code>",
)


def program_with(words: str) -> tuple[str, str]:
    """The README's program with ``words`` in it, and what it says to print."""
    (found,) = [(code, printed) for code, printed in PROGRAMS if words in code]
    return found


def table(text: str, first_heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called so, without the code marks."""
    _, _, rest = text.partition(f"\n| {first_heading} |")
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


# ------------------------------------------------------------------------------------------------------- programs


def test_every_python_block_is_a_program_of_these_tests_or_says_why_it_is_not_run() -> None:
    assert README.count("<!-- not run: asks the web -->\n```python\n") == README.count("<!-- not run") == 1
    elsewhere = README.count("<!-- run by tests/docker/test_service_docs.py")
    assert len(PROGRAMS) == README.count("```python\n") - 1 - elsewhere == 3


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
    with serving(*map(completion, REPLIES)) as server:
        out = run(code, tmp_path, asking(server))
    assert out == printed
    assert [request.path for request in server.requests] == ["/v1/chat/completions"] * 2
    first, second = server.bodies
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
