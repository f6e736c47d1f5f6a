"""The tables of ``cellblock.toml`` that the service reads: one dataclass each, every field a key. No I/O.

What a table can say wrong by itself is an error here; what it says of another table is checked in settings.py.
"""

from __future__ import annotations

import ipaddress
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from orchestrator.agents.calling import checked_threads
from orchestrator.config import Limits
from orchestrator.credentials import secrets_in, without_queries
from orchestrator.errors import AgentError, ConfigError
from orchestrator.models.by_name import PROVIDERS
from orchestrator.policy import import_rules
from orchestrator.typed_tables import in_range

MAX_STEPS = 10_000  # of one run; more is a mistake
MAX_POOL = 1000  # warm sandboxes: each is a container with its memory
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_HOST = re.compile(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class ServiceTable:
    """``[service]``: the process itself. Read when it starts; a change counts after a restart."""

    listen: str = "unix"  # "unix": a socket for this user alone; or "host:port", which needs tls_cert and tls_key
    tls_cert: str = ""  # file of the certificate and its chain, PEM; from the folder of the settings file
    tls_key: str = ""  # file of the certificate's key, PEM; from the folder of the settings file
    store: str = ""  # file of runs, events and tokens; empty: service.db in the folder for state
    console: str = "127.0.0.1:8088"  # address of the page to watch and steer; empty: none
    metrics: str = ""  # address that Prometheus reads from; empty: none
    otel: str = ""  # address that spans are sent to by OTLP over gRPC, "http://host:port"; empty: none are made
    reflection: bool = False  # whether the server describes its API to whoever asks
    max_runs: int = 8  # at work at the same time; further ones wait
    max_queue: int = 100  # runs that wait, and sandboxes that are waited for; further ones are refused
    retention_days: float = 30.0  # an ended run is deleted when it is older
    keep_runs: int = 10_000  # ended runs that are kept at most, the newest
    drain: float = 10.0  # seconds that executions have to end when the service is stopped

    def __post_init__(self) -> None:
        if self.listen != "unix":
            _check_address("listen", self.listen, "'unix' or 'host:port'")
            if not (self.tls_cert and self.tls_key):
                raise ConfigError(f"listen is {self.listen!r}, and TCP needs TLS: set tls_cert and tls_key")
        if self.metrics:
            _check_address("metrics", self.metrics, "'host:port', or empty for none")
        if self.console:
            loopback(self.console)
        if self.otel and not _is_receiver(self.otel):
            # What was written may have a password in it: it is not repeated.
            raise ConfigError("otel must be 'http://host:port' or 'https://host:port', or empty for none")
        in_range("max_runs", self.max_runs, 1, 1000)
        in_range("max_queue", self.max_queue, 0, 100_000)
        in_range("retention_days", self.retention_days, 0, 36_500)
        in_range("keep_runs", self.keep_runs, 0, 10_000_000)
        in_range("drain", self.drain, 0, 3600)


@dataclass(frozen=True, slots=True)
class ModelTable:
    """``[models.NAME]``: a model, and how it is asked. Its key is never in the file, only the name of a variable."""

    model: str  # "provider:name"; providers are those of docs/models.md
    api_base: str = ""  # address of the server; empty: as the provider's model says, perhaps from the environment
    api_key_env: str = ""  # NAME of the environment variable that holds the key; empty: the provider's usual one
    timeout: float | None = None  # seconds for one call; default: as the provider's model says
    requests_per_minute: float | None = None  # calls of all runs together, at even intervals; default: no limit
    temperature: float | None = None  # sent along, like the next five, with each request; default: not sent
    top_p: float | None = None  # share of probability that words are drawn from
    max_tokens: int | None = None  # of one reply, for most servers
    max_completion_tokens: int | None = None  # of one reply, for OpenAI's newer models
    seed: int | None = None  # for replies that can be repeated, where the server can
    reasoning_effort: str | None = None  # "low", "medium", "high", as the model knows them
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # what else is sent or set

    def __post_init__(self) -> None:
        provider, _, name = self.model.partition(":")
        if provider not in PROVIDERS or not name.strip():
            raise ConfigError(f"model is {self.model!r}; write provider:name, with {', '.join(PROVIDERS)}")
        if self.api_key_env and not _is_variable(self.api_key_env):
            # What was written may be the key: it is not repeated.
            raise ConfigError("api_key_env must be the NAME of an environment variable, not the key itself")
        check_no_secret("api_base", self.api_base)
        for place in secrets_in(dict(self.parameters), "parameters"):
            raise ConfigError(f"{place} {NO_SECRETS}")
        if named := self.parameters.keys() & {known.name for known in fields(self)}:
            raise ConfigError(f"parameters.{min(named)} is a key of its own: write it without 'parameters'")


NO_SECRETS = (
    "looks like a credential, which does not belong into a file: put it into an environment variable, and write its "
    'name: api_key_env = "NAME" of a model, headers_env or env of an [mcp.NAME]'
)


@dataclass(frozen=True, slots=True)
class McpTable:
    """``[mcp.NAME]``: an MCP server that needs more than its URL or its command. Agents have it by its name."""

    url: str = ""  # its address; or
    command: str = ""  # what starts it on this host, with its arguments as a shell has them
    transport: Literal["streamable-http", "sse"] = "streamable-http"  # how it is spoken to at its address
    headers_env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # header -> NAME of a variable
    env: tuple[str, ...] = ()  # NAMES of environment variables that the program gets besides the few usual ones

    def __post_init__(self) -> None:
        if bool(self.url) == bool(self.command):
            raise ConfigError("one of the two is needed: url or command")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url is {without_queries(self.url)!r}; it must begin with http:// or https://")
        if (self.command and self.headers_env) or (self.url and self.env):
            raise ConfigError("headers_env is for a url, env for a command")
        check_no_secret("command" if self.command else "url", self.command or self.url)
        for name in (*self.env, *self.headers_env.values()):
            if not _is_variable(name):  # the same as with the keys of models
                raise ConfigError("env and headers_env must have NAMES of environment variables, not their values")


def check_no_secret(place: str, text: str) -> None:
    """Raises if ``text`` looks like a credential, or has one in it.

    Raises:
        ConfigError: it does. The message does not repeat it.
    """
    if any(secrets_in(text, "name")):
        raise ConfigError(f"{place} {NO_SECRETS}")


_OF_CODE = ("imports", "limits", "timeout", "use_structured_outputs_internally", "max_print_outputs_length", "on_error")
_OF_CALLS = ("max_tool_threads",)


@dataclass(frozen=True, slots=True)
class AgentTable:
    """``[agents.NAME]``: an agent; each run has a new one. Most keys are the arguments of that name of its class."""

    kind: Literal["code", "tool_calling"] = "code"  # "code": acts by Python code; "tool_calling": by tool calls
    model: str = ""  # NAME of a [models.NAME], or "provider:name"; empty: the setting `model`
    description: str = ""  # what it is good at; for clients, and for its manager
    instructions: str = ""  # a text for the end of the system prompt
    tools: tuple[str, ...] = ()  # names of tools that come along, "module:function" of your own, "owner/space"
    mcp: tuple[str, ...] = ()  # MCP servers: NAMES of an [mcp.NAME], URLs, or commands that start one on this host
    managed_agents: tuple[str, ...] = ()  # its team: names of other agents, which need a description
    imports: tuple[str, ...] = ()  # modules that its code may import besides the default ones (kind "code")
    limits: Limits | None = None  # of its sandbox; what is not set is as in [limits] (kind "code")
    timeout: float | None = None  # seconds for one execution; default: the setting `timeout` (kind "code")
    tool_timeout: float | None = (
        None  # seconds for a call of a tool that sets none; default: the setting `tool_timeout`
    )
    max_steps: int = 20  # of one run; then it is asked once for its answer
    planning_interval: int | None = None  # it writes a plan first, and again every so many steps; default: no plan
    prompt_templates: str = ""  # YAML file in the place of the default ones; from the folder of the settings file
    provide_run_summary: bool = False  # in a team, it reports its work along with its answer
    stream_outputs: bool = False  # events include the pieces of the model's replies
    compaction: Literal["shorten", "summarise", "none"] = "shorten"  # what is done about a conversation grown too long
    use_structured_outputs_internally: bool = False  # the model answers with JSON of thought and code (kind "code")
    max_print_outputs_length: int | None = None  # characters of output shown to the model per step (kind "code")
    on_error: Literal["keep", "rollback"] = "keep"  # what a failed action leaves behind (kind "code")
    max_tool_threads: int | None = None  # calls at the same time; default 16 (kind "tool_calling")

    def __post_init__(self) -> None:
        self._check_kind()
        import_rules(self.imports)
        in_range("max_steps", self.max_steps, 1, MAX_STEPS)
        for name, low, high in (
            ("planning_interval", 1, MAX_STEPS),
            ("max_print_outputs_length", 1, 100_000_000),
            ("timeout", 0.01, 86400),
            ("tool_timeout", 0.01, 86400),
        ):
            if (value := getattr(self, name)) is not None:
                in_range(name, value, low, high)
        try:
            checked_threads(self.max_tool_threads)
        except AgentError as error:
            raise ConfigError(str(error)) from None
        for name in ("tools", "mcp", "managed_agents"):
            _check_unique(name, getattr(self, name))
        for number, text in enumerate(self.mcp):
            check_no_secret(f"mcp[{number}]", text)

    def _check_kind(self) -> None:
        others = _OF_CALLS if self.kind == "code" else _OF_CODE
        for known in fields(self):
            if known.name in others and getattr(self, known.name) != known.default:
                raise ConfigError(f"{known.name} is nothing for an agent of kind {self.kind!r}")


@dataclass(frozen=True, slots=True)
class PoolTable:
    """``[pools.NAME]``: sandboxes that are started before anybody asks for them."""

    size: int = 1  # how many wait at most
    imports: tuple[str, ...] = ()  # modules that code may import besides the default ones
    limits: Limits | None = None  # of each; what is not set is as in [limits]
    timeout: float | None = None  # seconds for one execution; default: the setting `timeout`
    final_answer: bool = False  # whether `final_answer(value)` exists in them, and ends the execution

    def __post_init__(self) -> None:
        in_range("size", self.size, 1, MAX_POOL)
        import_rules(self.imports)
        if self.timeout is not None:
            in_range("timeout", self.timeout, 0.01, 86400)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """``[[policy]]``: what is done about a request. The first rule that matches counts; without one it is allowed."""

    action: Literal["allow", "ask", "refuse"]  # "ask": somebody is asked, and no answer is a no
    tool: str = ""  # calls of the tool of this name; "*": of every tool
    execution: bool = False  # true: executions, that is the code of an action before it is run
    agent: str = ""  # of this agent only, be it in a team; empty: of all
    reason: str = ""  # told to whoever is asked, and to the code that is refused

    def __post_init__(self) -> None:
        if bool(self.tool) == self.execution:
            raise ConfigError('one of the two is needed: tool = "NAME" (or "*"), or execution = true')


def _is_variable(name: str) -> bool:
    """Whether it can be the name of an environment variable, and is no key of a provider."""
    return bool(_VARIABLE.fullmatch(name)) and not any(secrets_in(name, "name"))


def check_name(name: str) -> None:
    """Raises unless an agent can be called so.

    Raises:
        ConfigError: it cannot.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(
            f"{name!r} must be a Python identifier, such as {_identifier(name)}: managers call agents by it"
        )


def _identifier(name: str) -> str:
    made = re.sub(r"\W", "_", name) or "agent"
    return made if made.isidentifier() and not keyword.iskeyword(made) else f"agent_{made}"


def _check_unique(name: str, items: tuple[str, ...]) -> None:
    for item in items:
        if items.count(item) > 1:
            raise ConfigError(f"{name}: {item!r} is there twice")


def _is_receiver(address: str) -> bool:
    scheme, colon, rest = address.partition("://")
    return bool(colon) and scheme in ("http", "https") and host_and_port(rest) is not None


def host_and_port(address: str) -> tuple[str, int] | None:
    """The parts of ``host:port``, an IPv6 host without its brackets; None if it is not of that form."""
    host, colon, port = address.rpartition(":")
    if not colon or not _HOST.fullmatch(host) or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        return None
    if not host.startswith("["):
        return host, int(port)
    try:
        return str(ipaddress.IPv6Address(host[1:-1])), int(port)
    except ValueError:
        return None


def loopback(address: str) -> tuple[str, int]:
    """The parts of an address of the console; ``localhost`` is ``127.0.0.1``.

    Raises:
        ConfigError: it is none, or is not this machine's own alone.
    """
    host, port = host_and_port(address) or ("", 0)
    host = "127.0.0.1" if host.lower() == "localhost" else host
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        raise ConfigError(
            f"console is {address!r}; it must be 'host:port', or empty for none. The console has no TLS, so the host "
            "is this machine's own, such as 127.0.0.1:8088. From elsewhere come through `ssh -L 8088:127.0.0.1:8088`"
        )
    return host, port


def _check_address(name: str, address: str, said: str) -> None:
    if host_and_port(address) is None:
        raise ConfigError(f"{name} is {address!r}; it must be {said}")
