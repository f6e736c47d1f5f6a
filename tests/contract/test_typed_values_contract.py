"""What every sandbox backend must do with pictures and tables: they keep their type, both ways, where they can."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator import AgentAudio, AgentImage, NDArray, Opaque, Sandbox, Table
from tests.contract.conftest import DEADLINE

pytestmark = pytest.mark.docker

WAVE = b"RIFF\x24\0\0\0WAVEfmt " + bytes(24)
NOON = datetime.datetime(2026, 5, 1, 12)
RED = "from PIL import Image\nred = Image.new('RGB', (3, 2), 'red')\n"
FRAME = f"""
import datetime, pandas
frame = pandas.DataFrame({{"name": ["pen", "ink"], "price": [1.5, 2.25], "at": [{NOON!r}] * 2}}, index=[7, 9])
"""


class Given:
    """A tool that gives what it has, and keeps what it is given."""

    name = "exchange"

    def __init__(self) -> None:
        self.given: Any = None
        self.gives: Any = None

    def __call__(self, value: Any = None) -> Any:
        self.given = value
        return self.gives


@pytest.fixture(scope="module")
def tool() -> Given:
    return Given()


@pytest.fixture(scope="module")
def wide(make: Callable[..., Sandbox], tool: Given) -> Iterator[Sandbox]:
    """With the libraries."""
    imports = ["PIL.*", "pandas", "numpy", "matplotlib.*", "os", "signal"]
    with make(tools=[tool], authorized_imports=imports, timeout=DEADLINE, final_answer=True) as one:
        yield one


@pytest.fixture(scope="module")
def narrow(make: Callable[..., Sandbox], tool: Given) -> Iterator[Sandbox]:
    """Without any."""
    with make(tools=[tool], timeout=DEADLINE, final_answer=True) as one:
        yield one


def png(colour: str = "red") -> AgentImage:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(file, "PNG")
    return AgentImage.of(file.getvalue())


def test_a_picture_made_inside_is_a_value(wide: Sandbox) -> None:
    found = wide.run_code(RED + "[red, 1]").value
    assert isinstance(found[0], AgentImage)
    assert found[0].mime == "image/png"
    assert found[0].to_pil().getpixel((0, 0)) == (255, 0, 0)
    assert found[1] == 1


def test_a_picture_is_a_final_answer_and_an_argument(wide: Sandbox, tool: Given) -> None:
    answer = wide.run_code(RED + "final_answer(red)").final_answer
    assert answer is not None
    assert answer.value.to_pil().size == (3, 2)
    assert wide.run_code("exchange({'k': red})").ok
    assert tool.given["k"].to_pil().size == (3, 2)


def test_a_picture_that_a_tool_gives_is_pillows(wide: Sandbox, tool: Given) -> None:
    for tool.gives in (png(), png().to_pil()):
        code = "got = exchange()\ntype(got).__module__.partition('.')[0], got.size, got.getpixel((0, 0)), got"
        module, size, pixel, back = wide.run_code(code).value
        assert (module, size, pixel) == ("PIL", (3, 2), (255, 0, 0))
        assert back.to_pil().getpixel((1, 1)) == (255, 0, 0)


def test_a_picture_given_as_a_variable_is_the_same(wide: Sandbox) -> None:
    assert wide.run_code("photo.size", variables={"photo": png()}).value == (3, 2)
    assert wide.run_code("photo.resize((1, 1))").value.to_pil().size == (1, 1)


def test_a_figure_is_a_picture(wide: Sandbox) -> None:
    code = "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\naxes.plot([1, 2, 3])\nfigure"
    execution = wide.run_code(code)
    assert isinstance(execution.value, AgentImage), execution
    assert execution.value.to_pil().size == (640, 480)
    assert execution.results[0]["image/png"] == execution.value.data
    assert "Figure" in (execution.text or "")


def test_a_figure_that_cannot_be_drawn_is_opaque_by_itself(wide: Sandbox) -> None:
    code = "from matplotlib.figure import Figure\nfigure = Figure()\nfigure.suptitle(r'$\\nonsense$')\n[figure, 1]"
    found = wide.run_code(code).value
    assert isinstance(found[0], Opaque)
    assert found[1] == 1


def test_a_frame_made_inside_is_a_value_a_final_answer_and_an_argument(wide: Sandbox, tool: Given) -> None:
    answer = wide.run_code(FRAME + "final_answer(frame)").final_answer
    assert answer is not None
    assert wide.run_code("exchange(frame)").ok
    for found in (wide.run_code("frame").value, answer.value, tool.given):
        assert isinstance(found, Table)
        assert found.to_dict() == {"name": ["pen", "ink"], "price": [1.5, 2.25], "at": [NOON, NOON]}
        assert found.index is not None
        assert isinstance(found.index[1], NDArray)
        assert found.index[1].to_list() == [7, 9]
        assert isinstance(dict(found.columns)["price"], NDArray)


def test_a_frame_that_a_tool_gives_is_one(wide: Sandbox, tool: Given) -> None:
    frame = pd.DataFrame({"name": ["pen", "ink"], "n": [1, 2], "at": [NOON, NOON]}, index=[7, 9])
    code = "got = exchange()\n(type(got).__name__, list(map(str, got.dtypes))[1], got['n'].sum(), list(got.index), got)"
    for tool.gives in (frame, wide.run_code(FRAME.replace("price", "n") + "frame.astype({'n': 'int64'})").value):
        name, dtype, total, index, back = wide.run_code(code).value
        assert (name, dtype, index) == ("DataFrame", "int64", [7, 9])
        assert total == 3
        assert back.to_pandas()["at"].tolist() == [pd.Timestamp(NOON)] * 2


def test_a_series_stays_one(wide: Sandbox, tool: Given) -> None:
    tool.gives = wide.run_code("import pandas\npandas.Series([1.5, 2.5], name='s', index=['a', 'b'])").value
    assert tool.gives.is_series
    assert wide.run_code("got = exchange()\ntype(got).__name__, got['b'], got.name").value == ("Series", 2.5, "s")


def test_a_label_that_cannot_be_hashed_costs_nothing(wide: Sandbox, tool: Given) -> None:
    """The host would have to hash it."""
    code = "import pandas\nkept = 1\nodd = pandas.Series([1])\nodd._name = [1]\n[odd, kept]"
    found = wide.run_code(code).value
    assert isinstance(found[0], Opaque)
    assert found[1] == 1
    execution = wide.run_code("exchange(odd)")
    assert execution.error is not None
    assert "a name that cannot be the key of a dict" in execution.error.value
    tool.gives = Table((([1], [1]),))
    assert "cannot be a key in the sandbox" in str(wide.run_code("exchange()").error)
    assert wide.run_code("kept").value == 1


def test_a_time_beyond_pythons_is_opaque_by_itself_and_does_not_enter(wide: Sandbox, tool: Given) -> None:
    far = "pandas.Timestamp(numpy.datetime64('12000-01-01', 's'))"
    found = wide.run_code(f"import numpy, pandas\n[{far}, 1]").value
    assert isinstance(found[0], Opaque)
    assert found[1] == 1
    tool.gives = pd.Timestamp("2026-05-01T12:00:00.000000001")
    assert "round it with .floor('us')" in str(wide.run_code("exchange()").error)


def test_what_is_too_large_is_opaque(wide: Sandbox) -> None:
    found = wide.run_code("import numpy\nframe = pandas.DataFrame(numpy.zeros((300_000, 1)))\nframe").value
    assert isinstance(found, Opaque)
    noise = "Image.frombytes('L', (2000, 2000), numpy.random.bytes(4_000_000))"
    assert isinstance(wide.run_code(f"from PIL import Image\n[{noise}]").value[0], Opaque)


def test_sound_is_data_everywhere(wide: Sandbox, narrow: Sandbox, tool: Given) -> None:
    tool.gives = AgentAudio.of(WAVE)
    for one in (wide, narrow):
        code = "got = exchange()\ntype(got).__name__, got.mime, got.data, got._repr_mimebundle_(), got"
        name, mime, data, bundle, back = one.run_code(code).value
        assert (name, mime, data, bundle) == ("Media", "audio/wav", WAVE, {"audio/wav": WAVE})
        assert back == tool.gives


def test_without_the_libraries_they_are_plain(narrow: Sandbox, tool: Given) -> None:
    tool.gives = png()
    code = "got = exchange()\ntype(got).__name__, got.mime, got.data[:4], got"
    name, mime, begins, back = narrow.run_code(code).value
    assert (name, mime, begins, back) == ("Media", "image/png", b"\x89PNG", tool.gives)
    assert narrow.run_code("exchange(got)").ok
    assert tool.given == png()
    tool.gives = Table((("n", NDArray("int64", (2,), np.arange(2).tobytes())), ("t", ["a", None])), ("key", [7, 9]))
    assert narrow.run_code("exchange()").value == {"key": [7, 9], "n": [0, 1], "t": ["a", None]}
    tool.gives = np.arange(4.0).reshape(2, 2)
    assert narrow.run_code("exchange()").value == [[0.0, 1.0], [2.0, 3.0]]


def test_given_as_a_variable_without_the_library(narrow: Sandbox) -> None:
    given = {"table": Table((("n", [1, 2]),)), "photo": png()}
    assert narrow.run_code("table, photo.mime", variables=given).value == ({"n": [1, 2]}, "image/png")


def test_media_that_code_has_changed_do_not_end_the_sandbox(narrow: Sandbox, tool: Given) -> None:
    tool.gives = png()
    narrow.run_code("kept = 1\ngot = exchange()\ngot.mime = 'image/gif'")
    assert isinstance(narrow.run_code("[got]").value[0], Opaque)
    execution = narrow.run_code("exchange(got)")
    assert execution.error is not None
    assert "what its mime says" in execution.error.value
    assert narrow.run_code("kept").value == 1


def test_classes_of_that_name_are_nothing_special(narrow: Sandbox) -> None:
    code = """
class DataFrame:
    __module__ = "pandas"
    columns = property(lambda self: 1 / 0)
    def __repr__(self): return "<mine>"
[DataFrame()]
"""
    assert narrow.run_code(code).value == [Opaque("pandas.DataFrame", "<mine>")]
