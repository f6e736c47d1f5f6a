"""What doctor makes of what was found: lines, a table and data, without an engine."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.doctor import SCHEMA, Diagnosis, as_data, brief, show
from orchestrator.sandbox.isolation import Isolation
from orchestrator.sandbox.layers import Layer
from orchestrator.sandbox.levels import ALWAYS_OPEN, LEVELS
from orchestrator.stack.advisories import ADVISORIES, Component
from tests.unit.ready import FURTHER, NEEDED

DOCUMENT = (Path(__file__).parents[2] / "docs" / "isolation.md").read_text("utf-8")
GOOD = (
    Layer("no network", True, "interfaces: lo"),
    Layer("read-only root", True, "mounted ro"),
    Layer("Landlock", True, "ABI 7", level=2),
    Layer("own kernel", False, "the host's: 6.18", level=3),
    Layer("AppArmor", False, "neither", level=0),
)
PATCHED = (Component("Engine", "29.9.0"), Component("runc", "1.5.3"))
OLD = (Component("Engine", "20.10.24+dfsg1"), Component("runc", "1.1.5+ds1-1+deb12u1"))


def found(*layers: Layer, minimum: int = 1, parts: tuple[Component, ...] = PATCHED, **fields: object) -> Diagnosis:
    isolation = Isolation(layers or GOOD, "6.18", 2, "3.13.5", **{"landlock_abi": 7, **fields})  # type: ignore[arg-type]
    return Diagnosis(isolation, "", minimum, "image:tag", parts, "6.18")


NOTHING = Diagnosis(None, "the engine did not make the container as asked: X", 1, "image:tag", PATCHED, "6.18")


def shown(diagnosis: Diagnosis, terminal: bool) -> str:
    out = io.StringIO()
    show(diagnosis, Console(file=out, force_terminal=terminal, width=100, soft_wrap=not terminal, color_system=None))
    return out.getvalue()


def test_one_line_for_a_good_machine() -> None:
    assert brief(found()) == "isolation: level 2 (runc 1.5.3, kernel 6.18, landlock abi 7): all 3 layers in force"


def test_one_line_where_there_is_no_landlock() -> None:
    without = found(*GOOD[:2], Layer("Landlock", False, "not in force", level=2), landlock_abi=0)
    assert brief(without) == "isolation: level 1 (runc 1.5.3, kernel 6.18, no landlock): all 2 layers in force"


def test_one_line_on_a_kernel_of_its_own_counts_the_layers_of_that_level() -> None:
    other = found(GOOD[0], Layer("own kernel", True, "another", level=3), runtime="runsc", landlock_abi=0)
    assert brief(other) == "isolation: level 3 (runsc, kernel 6.18, no landlock): all 2 layers in force"


def test_one_line_of_known_holes_and_of_what_is_missing() -> None:
    line = brief(found(minimum=3, parts=OLD))
    assert line == (
        "isolation: level 2 (runc 1.1.5, kernel 6.18, landlock abi 7): level 3 is asked for; missing: own kernel "
        "(the host's: 6.18); known holes in these versions, see `cellblock doctor`"
    )
    broken = found(Layer("no network", False, "interfaces: lo, eth0"), *GOOD[1:])
    assert "level 0 (" in brief(broken)
    assert "missing: no network (interfaces: lo, eth0)" in brief(broken)
    assert brief(NOTHING) == "isolation: none: the engine did not make the container as asked: X"


@pytest.mark.parametrize(
    ("diagnosis", "level", "ok"),
    [
        (found(), 2, True),
        (found(minimum=2), 2, True),
        (found(minimum=3), 2, False),
        (found(Layer("x", False, "")), 0, False),
        (NOTHING, 0, False),
    ],
)
def test_it_is_satisfied_if_the_level_that_is_asked_for_is_reached(diagnosis: Diagnosis, level: int, ok: bool) -> None:
    assert (diagnosis.level, diagnosis.ok) == (level, ok)
    data = as_data(diagnosis)
    assert (data["level"], data["ok"]) == (level, ok)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("diagnosis", [found(), found(minimum=3, parts=OLD), NOTHING, found(Layer("x", False, ""))])
def test_people_are_told_everything_on_a_terminal_and_in_a_file(diagnosis: Diagnosis, terminal: bool) -> None:
    text = " ".join(re.sub(r"[│┃]", " ", shown(diagnosis, terminal)).split())
    told = [advisory.id for advisory in diagnosis.holes]
    if diagnosis.isolation:
        told += [part for layer in diagnosis.isolation.layers for part in (layer.name, layer.proof)]
    if diagnosis.level:
        told += [LEVELS[diagnosis.level - 1].leaves_open, *ALWAYS_OPEN]
    assert all(" ".join(words.split()) in text for words in told)
    assert brief(diagnosis) in text


def test_what_goes_to_a_file_has_one_line_for_each_layer_and_nothing_for_a_terminal() -> None:
    text = shown(found(parts=OLD), terminal=False)
    assert "yes     no network: interfaces: lo\n" in text
    assert "no      own kernel: the host's: 6.18\n" in text
    assert not set(text) & set("\x1b│┃─")
    assert all(len(line) > 3 for line in text.splitlines())


def test_a_known_hole_is_a_loud_warning() -> None:
    text = shown(found(parts=OLD), terminal=False)
    assert "WARNING CVE-2024-24557 (Engine): " in text
    assert "Repaired in 24.0.9, 25.0.2, or by your distribution." in text
    assert "CVE-2024-21626" not in text  # this package has the repair
    assert "WARNING" not in shown(found(), terminal=False)


# ------------------------------------------------------------------------------------------------- documentation


def documented(heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called so, without the code marks."""
    _, _, rest = DOCUMENT.partition(f"\n| {heading} |")
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("diagnosis", [found(parts=OLD), NOTHING])
def test_the_data_is_what_the_document_says(diagnosis: Diagnosis) -> None:
    data = as_data(diagnosis)
    assert json.loads(json.dumps(data)) == data
    assert list(data) == [field for field, *_ in documented("field")]
    kinds = {"number": int, "text": str, "yes or no": bool, "list": list, "object": dict}
    assert {field: kinds[kind] for field, kind, _ in documented("field")} == {k: type(v) for k, v in data.items()}
    assert f"`schema` is {SCHEMA}" in DOCUMENT


def test_every_level_of_the_document_is_one_of_the_code() -> None:
    rows = [(int(number), means, leaves) for number, means, leaves in documented("level")]
    assert rows == [(level.number, level.means, level.leaves_open) for level in LEVELS]
    for sentence in ALWAYS_OPEN:
        assert f"- {sentence}\n" in DOCUMENT


def test_every_known_hole_of_the_document_is_one_of_the_code() -> None:
    rows = [tuple(row) for row in documented("id")]
    assert rows == [(a.id, a.component, a.what.replace("`", ""), ", ".join(a.fixed_in)) for a in ADVISORIES]


def test_every_layer_of_the_document_is_one_of_the_code() -> None:
    assert [name for name, *_ in documented("layer")] == list(NEEDED + FURTHER)
