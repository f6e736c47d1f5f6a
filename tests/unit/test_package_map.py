"""Which files of which distributions importing a package needs, by the metadata that wheels carry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from executor_image.bootstrap import layout, packages
from executor_image.launcher import visible


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as pip installs into."""

    def install(name: str, files: list[str], *requires: str) -> None:
        info = f"{name.replace('-', '_')}-1.0.dist-info"
        lines = [f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {line}" for line in requires)]
        made = {f"{info}/METADATA": "Metadata-Version: 2.1\n" + "\n".join(lines) + "\n"}
        made |= dict.fromkeys(files, "")
        made[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*made, "../bin/tool", "gone/away.py"])
        for path, text in made.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)

    install("Frame", ["frame/__init__.py"], "num_py>=2", 'clock; python_version < "4"', 'plot; extra == "plot"')
    install("num.py", ["num/__init__.py", "num.libs/lib.so"])
    install("clock", ["clock.py"], "num-py", "frame")  # round in a ring
    install("plot", ["plot/__init__.py", "plot_tools/__init__.py"], "not-installed (>1)", "NUM-PY[all]")
    return tmp_path


NUM = ["num", "num.libs", "num.py-1.0.dist-info"]
RING = sorted([*NUM, "frame", "Frame-1.0.dist-info", "clock.py", "clock-1.0.dist-info"])
PLOT = sorted([*NUM, "plot", "plot_tools", "plot-1.0.dist-info"])


def test_a_package_needs_its_own_files_and_those_of_what_it_requires(site: Path) -> None:
    assert packages.needs(site) == {"num": NUM, "frame": RING, "clock": RING, "plot": PLOT, "plot_tools": PLOT}


def test_what_an_option_would_require_is_not_needed(site: Path) -> None:
    assert "plot" not in packages.needs(site)["frame"]


def test_the_launcher_reads_what_the_build_writes(site: Path) -> None:
    packages.write_map(site, site / "map.json")
    written = json.loads((site / "map.json").read_text())
    paths = [grant.path for grant in visible._packages(frozenset({"plot"}), written)]
    assert paths == [f"{visible.PACKAGES}/{entry}" for entry in PLOT]


def test_both_sides_speak_of_the_same_places() -> None:
    assert str(visible.PACKAGE_MAP) == f"/{layout.PACKAGE_MAP}"
    assert f"/{layout.RUNNER.path}" == visible.PREFIX
    assert f"/{layout.RUNNER.path}/{layout.RUNNER.third_party}" == visible.PACKAGES
    assert f"/{layout.RUNNER.path}/{layout.STDLIB}" == visible.STDLIB
