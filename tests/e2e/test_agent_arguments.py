"""What a model is told of its additional arguments, beside what they really are in the sandbox."""

from __future__ import annotations

import numpy
import pandas
import pytest
from PIL import Image

from orchestrator.agents import CodeAgent
from orchestrator.config import Config
from orchestrator.media import AgentAudio, AgentImage
from orchestrator.models import ScriptedModel
from orchestrator.sandbox import NDArray, Table
from tests.unit.scripted_agents import requests, step

pytestmark = pytest.mark.docker

WITHOUT = {
    "array": "ndarray; here, without numpy, nested lists",
    "table": "DataFrame; here, without pandas, a dict from column to list",
    "row": "Series; here, without pandas, a dict from column to list",
    "picture": "Image; here, without PIL, an object with mime and data",
}


@pytest.mark.parametrize(
    ("imports", "there"),
    [
        ([], set()),
        (["numpy"], {"array"}),
        (["pandas"], {"array", "table", "row"}),
        (["matplotlib.pyplot"], {"array", "picture"}),
        (["*"], {"array", "table", "row", "picture"}),
    ],
)
def test_the_model_is_told_what_arrives(config: Config, imports: list[str], there: set[str]) -> None:
    given = {
        "array": numpy.arange(3),
        "table": pandas.DataFrame({"a": [1]}),
        "row": pandas.Series([1]),
        "picture": Image.new("RGB", (2, 2)),
    }
    code = "final_answer([type(value).__name__ for value in (array, table, row, picture)])"
    with CodeAgent([], ScriptedModel([step(code)]), additional_authorized_imports=imports, verbosity_level=-1) as agent:
        kinds = dict(zip(given, agent.run("task", additional_args=given), strict=True))
        told = requests(agent)[0][-1].content
    simple = {"array": "list", "table": "dict", "row": "dict", "picture": "Media"}
    assert {name for name, kind in kinds.items() if kind != simple[name]} == there
    for name, words in WITHOUT.items():
        assert (f"- {name} ({words}): " in told) == (name not in there)
        assert f"- {name} ({type(given[name]).__name__}" in told


def test_what_stands_for_a_value_of_a_library_is_that_value_there(config: Config) -> None:
    given = {
        "array": NDArray("int8", (2,), b"\x01\x02"),
        "table": Table((("a", [1]),)),
        "picture": AgentImage.of(Image.new("RGB", (2, 2))),
        "sound": AgentAudio(b"RIFF\x04\x00\x00\x00WAVE", "audio/wav"),
    }
    code = "final_answer([type(value).__name__ for value in (array, table, picture, sound)])"
    imports = ["pandas", "PIL"]
    with CodeAgent([], ScriptedModel([step(code)]), additional_authorized_imports=imports, verbosity_level=-1) as agent:
        kinds = agent.run("task", additional_args=given)
        told = requests(agent)[0][-1].content
    assert kinds == ["ndarray", "DataFrame", "PngImageFile", "Media"]
    for words in (
        "array (NDArray; here an array of numpy): ",
        "table (Table; here of pandas): ",
        "picture (AgentImage; here an image of Pillow): ",
        "sound (AgentAudio; here an object with mime and data): ",
    ):
        assert f"- {words}" in told
