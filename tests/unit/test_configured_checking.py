"""``cellblock config check`` and ``show``: what is not there is told, and the exit code says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.configured.checking import Checked, check
from tests.unit.configured_files import shop, written

MODEL = '[models.m]\nmodel = "openai:m"\napi_base = "http://127.0.0.1:1/v1"\n'
CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CELLBLOCK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def checked(folder: Path, text: str, **env: str) -> Checked:
    return check(written(folder, text), env)


def test_what_is_all_there_has_no_problems(tmp_path: Path) -> None:
    tools = shop(tmp_path)
    text = f"""{MODEL}api_key_env = "KEY"
    [agents.default]
    model = "m"
    tools = ["{tools}:orders", "{tools}:Papers"]
    managed_agents = ["clerk"]
    [agents.clerk]
    kind = "tool_calling"
    model = "m"
    description = "x"
    tools = ["{tools}:send_mail"]
    [[policy]]
    tool = "send_mail"
    action = "ask"
    [[policy]]
    tool = "clerk"
    action = "allow"
    [[policy]]
    tool = "*"
    action = "allow"
    """
    found = checked(tmp_path, text, KEY=CANARY)
    assert (found.problems, found.notes) == ((), ())


def test_what_stands_in_the_query_of_a_url_is_shown_by_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, bare = "https://tools.test/mcp?v=hunter2&hunter3", "http://h.test/mcp?hunter4"
    text = f'{MODEL}[mcp.s]\nurl = "{url}"\n[agents.default]\nmodel = "m"\nmcp = ["s", "{bare}"]\n'
    file = written(tmp_path, text)
    for command in ("check", "show"):
        assert main(["config", command, str(file)]) == 0
        shown = capsys.readouterr().out
        assert "hunter" not in shown
        assert "https://tools.test/mcp?v=" in shown
    file.write_text(text.replace("https", "htps"))
    assert main(["config", "check", str(file)]) == 1
    told = capsys.readouterr().err
    assert "mcp.s: url is 'htps://tools.test/mcp?v=[redacted]&[redacted]'" in told
    assert "hunter" not in told


def test_nobody_elsewhere_is_asked_for_a_space(tmp_path: Path) -> None:
    rules = "".join(f'[[policy]]\naction = "ask"\ntool = "{name}"\n' for name in ("no_such_space", "other"))
    found = checked(tmp_path, f'{MODEL}[agents.default]\nmodel = "m"\ntools = ["nobody/no-such-space"]\n{rules}')
    assert found.problems == ()
    assert found.notes[0] == "tool nobody/no-such-space: it was not looked for in the hub"
    assert [note.partition(":")[0] for note in found.notes[1:]] == ["policy[1].tool"]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("timout = 1\n[service]\ndrain = -1", ["unknown setting timout", "service: drain"]),
        (
            "[models.unused]\nmodel = 'openai:x'\napi_key_env = 'NONE'\n[agents.default]\nmodel = 'm'",
            ["models.unused: api_key_env: the environment has no NONE"],
        ),
        ("[agents.default]\nmodel = 'openai:x'", ["agents.default.model: model x: set OPENAI_API_KEY"]),
        (
            "[agents.default]\nmodel = 'm'\ntools = ['nosuch:a', 'b']",
            ["agents.default.tools: tool 'nosuch:a'", "agents.default.tools: tool 'b'"],
        ),
        ("[agents.default]", ["model: model gpt-5-mini: set OPENAI_API_KEY"]),
        ("[agents.default]\nmodel = 'm'\ntools = ['SHOP:untyped']", ["agents.default.tools: "]),
        ("[agents.default]\nmodel = 'm'\ntools = ['SHOP:papers', 'SHOP:Papers']", ["agents.default: two tools"]),
        ("[agents.default]\nmodel = 'm'\nprompt_templates = 'nosuch.yaml'", ["agents.default: "]),
        (
            "[service]\nlisten = 'a:1'\ntls_cert = 'cert.pem'\ntls_key = '/nosuch/key.pem'\n"
            "[agents.default]\nmodel = 'm'",
            ["service.tls_cert: ", "service.tls_key: /nosuch/key.pem cannot be read"],
        ),
    ],
)
def test_what_is_not_there_is_told_with_its_place(tmp_path: Path, text: str, places: list[str]) -> None:
    tools = shop(tmp_path)
    found = checked(tmp_path, text.replace("SHOP", tools) + f"\n{MODEL}")
    assert len(found.problems) == len(places)
    for problem, place in zip(found.problems, places, strict=True):
        assert problem.startswith(place)


def test_programs_of_mcp_servers_are_looked_for_and_not_run(tmp_path: Path) -> None:
    script = tmp_path / "server.sh"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    script.chmod(0o755)
    text = (
        f"{MODEL}[agents.default]\nmodel = 'm'\nmcp = ['no-such-program --x', '{script}', 'http://127.0.0.1:1/mcp']\n"
    )
    assert checked(tmp_path, text).problems == ("agents.default.mcp: there is no program 'no-such-program'",)
    assert not (tmp_path / "was-run").exists()


def test_what_the_table_of_an_mcp_server_needs_is_looked_for(tmp_path: Path) -> None:
    tables = (
        "[mcp.tickets]\nurl = 'http://127.0.0.1:1/mcp'\nheaders_env = { Authorization = 'TOKEN' }\n"
        "[mcp.files]\ncommand = 'no-such-program'\n"
    )
    text = f"{MODEL}{tables}[agents.default]\nmodel = 'm'\nmcp = ['tickets', 'files', 'tickest']\n"
    missing, *programs = checked(tmp_path, text).problems
    assert missing == "agents.default.mcp: mcp.tickets: headers_env: the environment has no TOKEN"
    assert programs[0] == "agents.default.mcp: there is no program 'no-such-program'"
    assert programs[1].startswith("agents.default.mcp: there is no program 'tickest'; did you mean tickets?")
    assert len(checked(tmp_path, text, TOKEN="Bearer canary").problems) == 2


def test_a_rule_for_a_tool_that_no_agent_has_is_noted(tmp_path: Path) -> None:
    text = f"{MODEL}[agents.default]\nmodel = 'm'\ntools = ['{shop(tmp_path)}:send_mail']\n"
    found = checked(tmp_path, f"{text}[[policy]]\ntool = 'send_mial'\naction = 'refuse'\n")
    assert found.problems == ()
    (note,) = found.notes
    assert note.startswith("policy[0].tool: no agent has a tool 'send_mial' of its own;")
    assert "did you mean send_mail?" in note


def test_a_model_that_loads_weights_is_not_loaded(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    found = checked(tmp_path, "[models.w]\nmodel = 'transformers:no/such'\n[agents.default]\nmodel = 'w'\n")
    assert (found.problems, found.notes) == ((), ("models.w: it was not loaded",))


def test_a_model_whose_extra_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImportError):
        import vllm  # noqa: F401 # type: ignore[import-not-found]
    found = checked(tmp_path, "[models.w]\nmodel = 'vllm:x'\n[agents.default]\nmodel = 'w'\n")
    assert found.problems == ("models.w: it needs vllm; install it with: pip install 'cellblock[vllm]'",)


# ------------------------------------------------------------------------------------------------- the command line


def test_check_tells_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools = shop(tmp_path)
    agent = f"[agents.default]\nmodel = 'm'\ntools = ['{tools}:orders']\n"
    rest = "[pools.p]\nsize = 3\n[[policy]]\nexecution = true\naction = 'ask'\nagent = 'default'\n"
    file = written(tmp_path, MODEL + agent + rest)
    assert main(["config", "check", str(file)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines() == [
        str(file),
        "service: listens at unix, console at 127.0.0.1:8088",
        "model m: openai:m at http://127.0.0.1:1/v1",
        f"agent default: code, model m, tools {tools}:orders",
        "pool p: 3 of none",
        "policy[0]: ask executions by default",
        "all right",
    ]


def test_check_tells_each_problem_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "timout = 1\n[agents.a]\nmodle = 'm'\n")
    assert main(["config", "check", str(file)]) == 1
    told = capsys.readouterr()
    assert told.out == f"{file}: 2 problems\n"
    assert [line.partition("?")[0] for line in told.err.splitlines()] == [
        "cellblock: unknown setting timout; did you mean timeout",
        "cellblock: unknown setting agents.a.modle; did you mean agents.a.model",
    ]


def test_a_broken_file_of_the_current_folder_can_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("cellblock.toml").write_text("timout = 1\n")
    assert main(["config", "check"]) == 1
    assert "did you mean timeout?" in capsys.readouterr().err
    assert main(["config", "show"]) == 2
    assert "did you mean timeout?" in capsys.readouterr().err


def test_without_a_file_the_defaults_are_checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    assert main(["config", "check"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("no file: defaults and the environment\n")
    assert "canary" not in told


def test_what_is_shown_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, '[agents.default]\ninstructions = "a\\u001b[2J\\u202eb"\n')
    assert main(["config", "show", str(file)]) == 0
    told = capsys.readouterr().out
    assert "[agents.default]" in told
    assert "\x1b" not in told
    assert "\u202e" not in told
