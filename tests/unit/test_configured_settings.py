"""The tables of cellblock.toml: what is read, and what is told about what is wrong."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from orchestrator.config import Config, Limits
from orchestrator.configured import AgentTable, PolicyRule, ServiceSettings, ServiceTable, host_and_port
from orchestrator.configured.showing import HIDDEN, as_toml
from orchestrator.errors import ConfigError, NotFound
from tests.unit.configured_files import load, written

EXAMPLE = re.search(
    r"```toml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8"), re.S
)


@pytest.fixture
def example(tmp_path: Path) -> ServiceSettings:
    assert EXAMPLE
    return load(tmp_path, EXAMPLE[1])


def test_the_example_of_the_guide_is_right(example: ServiceSettings, tmp_path: Path) -> None:
    assert example.config == Config(timeout=20, audit="audit.jsonl", limits=Limits(memory="512m"))
    assert example.service.retention_days == 90
    assert example.models["own"].parameters["extra_body"] == {"top_k": 20}
    assert example.agents["default"].imports == ("numpy", "pandas.*")
    assert example.agent("").limits == Limits(memory="1g")
    assert example.pool("analysis").size == 2
    assert example.policy[0] == PolicyRule("ask", tool="send_mail", reason="mail leaves the house")
    assert example.family("") == ("default", "researcher")
    assert example.beside("tls/cert.pem") == tmp_path / "tls" / "cert.pem"
    assert example.beside("/etc/cert.pem") == Path("/etc/cert.pem")


def test_the_settings_of_sandboxes_are_read_from_the_same_file(tmp_path: Path) -> None:
    assert EXAMPLE
    assert Config.load(written(tmp_path, EXAMPLE[1]), {}).timeout == 20


def test_without_agents_there_is_one_with_the_model_of_the_settings(tmp_path: Path) -> None:
    settings = load(tmp_path, "[agents]\n", CELLBLOCK_MODEL="some-model")
    assert settings.agents == {"default": AgentTable()}
    assert settings.config.model == "some-model"
    assert ServiceSettings.load(None, {"CELLBLOCK_CONFIG": str(tmp_path / "cellblock.toml")}).service == ServiceTable()


def test_limits_of_a_table_go_over_those_of_all_and_these_over_the_defaults(tmp_path: Path) -> None:
    text = "[limits]\npids = 50\ncpus = 2\n[agents.a.limits]\ncpus = 0.5\n[agents.b]\n[pools.p.limits]\nmemory = '1g'\n"
    settings = load(tmp_path, text, CELLBLOCK_LIMITS_NOFILE="128")
    assert settings.agents["a"].limits == Limits(pids=50, cpus=0.5, nofile=128)
    assert settings.agents["b"].limits is None
    assert settings.pools["p"].limits == Limits(pids=50, cpus=2, nofile=128, memory="1g")


WRONG = {
    # Names.
    "[agents.a]\nplannig_interval = 3": "unknown setting agents.a.plannig_interval; did you mean agents.a.planning_int",
    "[agents.a.limits]\nmemroy = '1g'": "unknown setting agents.a.limits.memroy; did you mean agents.a.limits.memory?",
    "[service]\nlisten_on = 'unix'": "unknown setting service.listen_on; did you mean service.listen?",
    "[models.m]\nmodel = 'openai:m'\nTemperature = 1": "did you mean models.m.temperature?",
    "[pools.p]\nsizes = 1": "unknown setting pools.p.sizes; did you mean pools.p.size?",
    "[[policy]]\ntol = 'x'\naction = 'ask'": "unknown setting policy[0].tol; did you mean policy[0].tool?",
    "[agent.a]": "unknown setting agent; did you mean agents?",
    "[modles.a]": "unknown setting modles; did you mean models?",
    # Forms.
    "agents = 5": "agents must be tables: write [agents.NAME]",
    "[agents]\na = 5": "agents.a must be a table",
    "[policy]\ntool = 'x'": "policy must be a list of tables: write [[policy]]",
    "policy = [1]": "policy[0] must be a table",
    "service = 'unix'": "service must be a table",
    "[agents.a]\nlimits = 5": "agents.a.limits must be a table",
    "[agents.a]\ntools = 'web_search'": "agents.a.tools must be a list",
    "[agents.a]\ntools = [1.5]": "agents.a.tools[0] must be text",
    "[agents.a]\nstream_outputs = 1": "agents.a.stream_outputs must be true or false, not 1",
    "[agents.a]\nkind = 'coder'": "agents.a.kind is 'coder'; it must be 'code' or 'tool_calling'",
    "[models.m]": "models.m.model is missing",
    "[models.m]\nmodel = 'openai:m'\nparameters = 3": "models.m.parameters must be a table",
    "[[policy]]\ntool = 'x'": "policy[0].action is missing",
    # Values.
    "[agents.a]\nmax_steps = 0": "agents.a: max_steps is 0; it must be between 1 and",
    "[agents.a]\ntimeout = 0": "agents.a: timeout is 0",
    "[agents.a.limits]\npids = 1": "agents.a.limits: limits.pids is 1",
    "[agents.a]\nimports = ['os;']": "agents.a: authorized_imports: 'os;'",
    "[agents.a]\ntools = ['x:y', 'x:y']": "agents.a: tools: 'x:y' is there twice",
    "[agents.a]\nmax_tool_threads = 2": "agents.a: max_tool_threads is nothing for an agent of kind 'code'",
    "[agents.a]\nkind = 'tool_calling'\nmax_tool_threads = 0": "agents.a: max_tool_threads is 0",
    "[agents.a]\nkind = 'tool_calling'\nimports = ['numpy']": "agents.a: imports is nothing for an agent of kind",
    "[pools.p]\nsize = 0": "pools.p: size is 0",
    "[service]\nlisten = 'localhost'": "service: listen is 'localhost'; it must be 'unix' or 'host:port'",
    "[service]\nlisten = '127.0.0.1:1'": "service: listen is '127.0.0.1:1', and TCP needs TLS: set tls_",
    "[service]\nconsole = 'unix'": "service: console is 'unix'; it must be 'host:port', or empty for none",
    "[service]\nconsole = '0.0.0.0:8088'": "service: console is '0.0.0.0:8088'; it must be 'host:port'",
    "[service]\nconsole = '[::]:8088'": "the host is this machine's own, such as 127.0.0.1:8088",
    "[service]\nconsole = 'example.org:8088'": "The console has no TLS",
    "[service]\notel = '127.0.0.1:4317'": "service: otel must be 'http://host:port' or",
    "[service]\notel = 'http://user:hunter22@host:4317'": "service: otel must be 'http://host:port' or",
    "[service]\ndrain = -1": "service: drain is -1",
    "[[policy]]\naction = 'ask'": "policy[0]: one of the two is needed: tool",
    "[[policy]]\naction = 'ask'\ntool = 'x'\nexecution = true": "policy[0]: one of the two is needed: tool",
    "[models.m]\nmodel = 'gpt'": "models.m: model is 'gpt'; write provider:name",
    "[models.m]\nmodel = 'opnai:gpt'": "models.m: model is 'opnai:gpt'; write provider:name",
    "[models.m]\nmodel = 'openai: '": "models.m: model is 'openai: '",
    "[models.m]\nmodel = 'openai:m'\nparameters = { seed = 1 }": "parameters.seed is a key of its own",
    "[mcp.s]": "mcp.s: one of the two is needed: url or command",
    "[mcp.s]\nurl = 'ftp://x'": "mcp.s: url is 'ftp://x'; it must begin with http",
    "[mcp.s]\nurl = 'http://x'\nenv = ['A']": "mcp.s: headers_env is for a url, env for a command",
    "[mcp.s]\ncommand = 'x'\nheaders_env = { A = 'A' }": "mcp.s: headers_env is for a url, env for a command",
    "[mcp.s]\nurl = 'http://x'\nheaders_env = ['A']": "mcp.s.headers_env must be a table",
    "[mcp.s]\nurl = 'http://x'\nhaeders_env = {}": "did you mean mcp.s.headers_env?",
    # What one table says of another.
    "[agents.my-agent]": "agents.my-agent: 'my-agent' must be a Python identifier, such as my_agent",
    "[models.fast]\nmodel = 'openai:m'\n[agents.a]\nmodel = 'fats'": (
        "agents.a.model: there is no [models.fats]; did you mean fast?"
    ),
    "[agents.a]\nmodel = 'gpt-5'": "write provider:name, such as openai:gpt-5",
    "[agents.a]\nmanaged_agents = ['b']": "agents.a.managed_agents: there is no agent 'b'",
    "[agents.a]\nmanaged_agents = ['bob']\n[agents.bob]": "agents.a.managed_agents: agents.bob needs a description",
    "[agents.a]\ndescription = 'x'\nmanaged_agents = ['a']": "agents.a.managed_agents: a circle: a -> a",
    "[[policy]]\naction = 'ask'\ntool = 'x'\nagent = 'defalt'": (
        "policy[0].agent: there is no agent 'defalt'; did you mean default?"
    ),
    "max_sandboxes = 5\n[pools.a]\nsize = 3\n[pools.b]\nsize = 2": (
        "pools: their 5 sandboxes leave no room for others, as max_sandboxes is 5"
    ),
    # Nothing to be read.
    "agents = ": "settings file",
}


@pytest.mark.parametrize(("text", "says"), WRONG.items(), ids=lambda text: text[:32].replace("\n", " "))
def test_what_is_wrong_is_told_with_its_place_and_what_is_right(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert says in str(raised.value)


KEY = "sk-canary-0123456789abcdef"


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (f"api_key = '{KEY}'", "models.m.api_key"),
        ("api_key = 'canary of another form'", "models.m.api_key"),
        (f"token = '{KEY}'", "models.m.token"),
        (f"parameters = {{ api_key = '{KEY}' }}", "parameters['api_key']"),
        (f"parameters = {{ client_kwargs = {{ default_headers = {{ X-It = '{KEY}' }} }} }}", "default_headers"),
        (f"api_base = 'https://user:{KEY}@example.org/v1'", "api_base"),
        (f"api_key_env = '{KEY}'", "api_key_env must be the NAME of an environment variable"),
        ("api_key_env = 'hf_canaryabcdefghijklmnop'", "api_key_env must be the NAME of an environment variable"),
    ],
)
def test_a_key_in_the_file_is_an_error_that_does_not_repeat_it(tmp_path: Path, line: str, place: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, f"[models.m]\nmodel = 'openai:m'\n{line}\n")
    assert place in str(raised.value)
    assert "environment variable" in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"[mcp.s]\nurl = 'https://me:{KEY}@x/mcp'", "mcp.s: url looks like a credential"),
        (f"[mcp.s]\ncommand = 'run --key {KEY}'", "mcp.s: command looks like a credential"),
        (f"[mcp.s]\nurl = 'http://x'\ntoken = '{KEY}'", "mcp.s.token looks like a credential"),
        (f"[mcp.s]\ncommand = 'run'\nenv = ['TOKEN={KEY}']", "must have NAMES of environment variables"),
        (f"[mcp.s]\nurl = 'http://x'\nheaders_env = {{ A = 'Bearer {KEY}' }}", "must have NAMES of environment var"),
        (f"[agents.a]\nmcp = ['https://me:{KEY}@x/mcp']", "agents.a: mcp[0] looks like a credential"),
    ],
)
def test_a_credential_of_an_mcp_server_is_an_error_that_does_not_repeat_it(
    tmp_path: Path, text: str, place: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert place in str(raised.value)
    assert "canary" not in str(raised.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = "timout = 1\n[service]\ndrain = -1\n[agents.a]\nmax_steps = 0\n[agents.b]\nmodle = 'x'\n[[policy]]\n"
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    places = ("unknown setting timout", "service: drain", "agents.a: ", "unknown setting agents.b.modle", "policy[0].")
    assert [line.startswith(place) for line, place in zip(str(raised.value).splitlines(), places, strict=True)] == [
        True
    ] * 5


def test_a_circle_is_told_to_those_who_are_in_it_and_others_are_a_tree(tmp_path: Path) -> None:
    agents = {"a": ["b"], "b": ["c"], "c": ["d", "b"], "d": []}
    text = "".join(f"[agents.{name}]\ndescription = 'x'\nmanaged_agents = {team}\n" for name, team in agents.items())
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert str(raised.value).splitlines() == [
        "agents.b.managed_agents: a circle: b -> c -> b",
        "agents.c.managed_agents: a circle: c -> b -> c",
    ]
    tree = load(tmp_path, text.replace("['d', 'b']", "['d']"))
    assert tree.family("a") == ("a", "b", "c", "d")


def test_many_who_share_their_teams_are_gone_through_once(tmp_path: Path) -> None:
    """Each layer has the whole next one as its team: there are 4**20 ways through."""
    layers = [[f"a{layer}_{number}" for number in range(4)] for layer in range(20)]
    text = "".join(
        f"[agents.{name}]\ndescription = 'x'\nmanaged_agents = {below}\n"
        for above, below in zip(layers, [*layers[1:], []], strict=True)
        for name in above
    )
    assert len(load(tmp_path, text).family("a0_0")) == 77


def test_what_is_not_there_is_told_with_the_nearest(example: ServiceSettings) -> None:
    with pytest.raises(NotFound, match="there is no agent 'researchers'; did you mean researcher\\?"):
        example.agent("researchers")
    with pytest.raises(NotFound, match="there is no pool 'x'; known: analysis"):
        example.pool("x")
    with pytest.raises(NotFound, match="there are none"):
        ServiceSettings().pool("x")


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:8088", ("127.0.0.1", 8088)),
        ("[::1]:0", ("::1", 0)),
        ("example.org:443", ("example.org", 443)),
        *(
            (wrong, None)
            for wrong in ("", ":1", "a", "a:", "a:x", "a:65536", "::1:80", "[::g]:1", "[1]:2", "a b:1", "a:１")
        ),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, parts: tuple[str, int] | None) -> None:
    assert host_and_port(address) == parts


def test_the_store_is_in_the_folder_for_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert ServiceSettings().store == tmp_path / "state" / "cellblock" / "service.db"
    assert load(tmp_path, "[service]\nstore = 'my.db'").store == tmp_path / "my.db"


# ----------------------------------------------------------------------------------------------------------- showing


def test_what_is_shown_can_be_loaded_as_the_same(example: ServiceSettings, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    again = load(folder, as_toml(example))
    assert dataclasses.replace(again, file=example.file) == example
    assert again.agents["default"].limits == Limits(memory="1g")


def test_odd_values_are_shown_as_they_are(tmp_path: Path) -> None:
    text = (
        'runtime = "a\\"b\\\\c\\u007f\\u0001 é \\n"\n'
        '[models."odd name"]\nmodel = "openai:m"\n'
        '[models."odd name".parameters]\na = [1, 2.5, true, "x"]\n"b c" = { d = 1979-05-27, e = 07:32:00 }\n'
        "f = 1979-05-27T07:32:00Z\ng = inf\n"
    )
    settings = load(tmp_path, text)
    assert dataclasses.replace(load(tmp_path, as_toml(settings)), file=settings.file) == settings


def test_the_environment_is_shown_and_what_looks_like_a_credential_is_not(tmp_path: Path) -> None:
    settings = load(tmp_path, "", CELLBLOCK_TIMEOUT="7", CELLBLOCK_DOCKER_HOST=f"tcp://me:{KEY}@example.org")
    shown = as_toml(settings)
    assert "timeout = 7.0\n" in shown
    assert f'docker_host = "{HIDDEN}"' in shown
    assert "canary" not in shown
