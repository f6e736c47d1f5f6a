"""Gradio apps as tools: a real app on 127.0.0.1, one that lies, and the old gradio tools."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ToolError, ToolUnavailable
from orchestrator.media import AgentImage
from orchestrator.tools import Tool
from orchestrator.tools.gradio import _dicts, _endpoint, _Parameter, _Received, _safe_default


class Old:
    """As the tools of the gradio_tools package are."""

    name = "old-tool"
    description = "Doubles."

    def run(self, text: str, times: int = 2) -> str:
        return text * times


def test_an_old_gradio_tool() -> None:
    made = Tool.from_gradio(Old())
    assert made.name == "old_tool"
    assert not made.is_async
    assert made("ab") == "abab"
    assert made("ab", times=3) == "ababab"
    with pytest.raises(TypeError, match="'times' must be integer"):
        made("ab", "3")


def test_what_is_no_gradio_tool_is_refused() -> None:
    with pytest.raises(ToolError, match="not object"):
        Tool.from_gradio(object())


class Unhinted(Old):
    def run(self, query: Missing) -> str:  # type: ignore[name-defined]  # noqa: F821
        return str(query)


class Open(Old):
    def run(self, *query: str) -> str:
        return str(query)


@pytest.mark.parametrize(("made", "said"), [(Unhinted(), "'Missing' is not defined"), (Open(), r"not \*query")])
def test_arguments_that_cannot_be_told_of_are_refused(made: Old, said: str) -> None:
    with pytest.raises(ToolError, match=rf"tool old-tool: .*{said}"):
        Tool.from_gradio(made)


PASSWD = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("default", [PASSWD, [PASSWD], {"a": {"b": PASSWD}}, {**PASSWD, "url": "http://other/x"}])
def test_a_default_that_names_a_file_here_is_none(default: Any) -> None:
    """gradio_client would read that file and send it."""
    assert _safe_default(default, "http://app/") == (False, None)
    said = {"parameter_name": "x", "parameter_has_default": True, "parameter_default": default, "component": "JSON"}
    assert _Parameter.of(0, said, "http://app/").needed


def test_a_default_that_is_a_file_of_the_app_is_its_address() -> None:
    safe, kept = _safe_default({**PASSWD, "url": "http://app/file=x"}, "http://app/")
    assert safe
    assert kept["path"] == "http://app/file=x"


def test_a_text_that_looks_like_a_path_stays_a_text() -> None:
    assert _Received(None, "s").value(["/etc/passwd", {"a": "/etc/passwd"}]) == ["/etc/passwd", {"a": "/etc/passwd"}]


@pytest.mark.parametrize(
    "told",
    [None, [], "x", {}, {"named_endpoints": ["/x"]}, {"named_endpoints": {"/x": "y"}}, {"named_endpoints": {3: []}}],
)
def test_an_app_that_says_nothing_of_use_is_refused(told: Any) -> None:
    with pytest.raises(ToolError, match="the Space s "):
        _endpoint(told, "s", None)


@pytest.mark.parametrize("parameters", ["x", {"a": 1}, [None], [[]], 3])
def test_parameters_that_are_none_are_refused(parameters: Any) -> None:
    with pytest.raises(ToolError, match="no form that can be read"):
        _dicts({"parameters": parameters}, "parameters")
    assert _dicts({"parameters": None}, "parameters") == []


@pytest.mark.parametrize("odd", [None, "str", ["x"], 3, {"description": ["x"]}])
def test_a_parameter_may_be_of_any_shape(odd: Any) -> None:
    said = dict.fromkeys(("parameter_name", "label", "python_type", "type", "component", "parameter_default"), odd)
    assert _Parameter.of(0, said, "http://app/").needed


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    gradio = pytest.importorskip("gradio")
    from PIL import Image

    def greet(name: str, times: float = 2) -> str:
        return f"hello {name}" * int(times)

    def flip(picture: Any) -> tuple[Any, int]:
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 42

    def fail(text: str) -> str:
        raise gradio.Error(f"no {text}")

    def liar(text: str) -> str:
        return "/etc/hostname"

    def echo(value: Any) -> Any:
        return value

    with gradio.Blocks(analytics_enabled=False) as blocks:
        name, times, text, result = gradio.Textbox(), gradio.Number(2), gradio.Textbox(), gradio.Textbox()
        picture, flipped, seed = gradio.Image(type="pil"), gradio.Image(type="pil", format="png"), gradio.Number()
        value, same = gradio.JSON(), gradio.JSON()
        gradio.Button().click(greet, [name, times], result, api_name="greet")
        gradio.Button().click(flip, picture, [flipped, seed], api_name="flip")
        gradio.Button().click(fail, text, result, api_name="fail")
        gradio.Button().click(liar, text, result, api_name="liar")
        gradio.Button().click(echo, value, same, api_name="echo")
    _, url, _ = blocks.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, share=False)
    yield url
    blocks.close()


def test_the_first_endpoint_is_taken(app: str) -> None:
    made = Tool.from_space(app, "greeter", "Greets.")
    assert made.output_type == "string"
    assert made("Ada") == "hello Ada" * 2
    assert made(name="Ada", times=1) == "hello Ada"
    with pytest.raises(TypeError, match="'name' must be string"):
        made(3)


def test_pictures_go_and_come(app: str) -> None:
    from PIL import Image

    picture = Image.new("RGB", (2, 1), "red")
    picture.putpixel((1, 0), (0, 0, 255))
    made = Tool.from_space(app, "flipper", "Flips.", api_name="flip")
    assert made.output_type == "image"
    for given in (picture, AgentImage.of(picture), AgentImage.of(picture).data):
        flipped = made(given)
        assert isinstance(flipped, AgentImage)
        assert flipped.to_pil().convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def test_files_of_the_host_are_not_sent(app: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"hush")
    flip = Tool.from_space(app, "flipper", "Flips.", api_name="/flip")
    with pytest.raises(TypeError, match="files of the host are not read"):
        flip(str(secret))
    echo = Tool.from_space(app, "echo", "Gives back.", api_name="/echo")
    assert echo({"a": [1, "x"]}) == {"a": [1, "x"]}
    with pytest.raises(TypeError, match="names a file of the host"):
        echo({"deep": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}]})


def test_an_error_of_the_app(app: str) -> None:
    with pytest.raises(RuntimeError, match="no way"):
        Tool.from_space(app, "failer", "Fails.", api_name="fail")("way")


def test_a_path_in_a_result_is_not_read(app: str) -> None:
    assert Tool.from_space(app, "liar", "Lies.", api_name="liar")("x") == "/etc/hostname"


def test_an_endpoint_that_is_not_there(app: str) -> None:
    with pytest.raises(ToolError, match="it has /greet, /flip"):
        Tool.from_space(app, "x", "d", api_name="nothing")


def test_nobody_there() -> None:
    with pytest.raises(ToolUnavailable, match="cannot be used"):
        Tool.from_space("http://127.0.0.1:9", "x", "d")


def test_the_token_on_this_machine_is_not_sent(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_whoever_runs_this")
    made: Any = Tool.from_space(app, "greeter", "Greets.")
    assert "hf_of_whoever" not in json.dumps(dict(made._call.__self__.client.headers))
