"""Random numbers of copies: new ones, unless the code has fixed them. Each test has a real runner, and its forks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.real_runner import Runner, real_runner

PYTHON, NUMPY = "random.random()", "float(numpy.random.random())"


@pytest.fixture(scope="module")
def fresh() -> Iterator[Runner]:
    """A runner that never runs anything."""
    with real_runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def fresh_with_numpy(fresh: Runner) -> Runner:
    """One that has only imported numpy."""
    runner = fresh.fork().wake()
    runner.run("import numpy")
    return runner


@pytest.fixture
def runner(fresh: Runner) -> Runner:
    """As good as a runner that has just been started."""
    return fresh.fork().wake()


@pytest.fixture
def numpy_runner(fresh_with_numpy: Runner) -> Runner:
    """And has imported numpy."""
    return fresh_with_numpy.fork().wake()


def copied(runner: Runner, draw: str) -> str:
    """What is drawn in a copy that has become a head."""
    return runner.fork().wake().run(draw)


def drawn(runner: Runner, draw: str) -> list[str]:
    """What two copies, a copy of a copy, a copy of a checkpoint of a checkpoint, and the original draw."""
    copies = [runner.fork(), runner.fork(), runner.fork(), runner.fork()]
    deep = copies[2].wake().fork()
    before_it_is_woken = copies[3].fork()
    copies[3].wake().run(draw)
    return [each.wake().run(draw) for each in (copies[0], copies[1], deep, before_it_is_woken)] + [runner.run(draw)]


@pytest.mark.parametrize(
    "setup",
    [
        "random.seed(1)",
        "random.seed(a=1)",
        "random.seed('text', 2)",
        "random.seed(0)",
        "random.setstate(random.getstate())",
        "random.seed(1); random.random(); random.gauss(0, 1)",
        "from random import seed\nseed(1)",
        "import random as r\nr.seed(1)",
        "random.seed()\nrandom.seed(1)",
    ],
)
def test_what_the_code_has_seeded_goes_on_in_every_copy_as_in_the_original(runner: Runner, setup: str) -> None:
    runner.run(f"import random\n{setup}")
    assert len(set(drawn(runner, PYTHON))) == 1


@pytest.mark.parametrize(
    "setup",
    [
        "",
        "random.random()",
        "random.seed()",
        "random.seed(None)",
        "random.seed(a=None)",
        "random.seed(None, 2)",
        "random.seed(version=2)",
        "random.seed(1)\nrandom.seed()",
        "random.seed(1)\nrandom.seed(None)",
        "random.setstate(random.getstate())\nrandom.seed()",
        "random.Random(1).random()",
        "try: random.seed([])\nexcept TypeError: pass",
        "try: random.setstate(())\nexcept Exception: pass",
    ],
)
def test_what_the_code_has_not_seeded_is_another_in_every_copy(runner: Runner, setup: str) -> None:
    runner.run(f"import random\n{setup}")
    assert len(set(drawn(runner, PYTHON))) == 5


@pytest.mark.parametrize(
    "setup",
    [
        "numpy.random.seed(1)",
        "numpy.random.seed(seed=1)",
        "numpy.random.set_state(numpy.random.get_state())",
        "from numpy.random import seed\nseed(1)",
        "import numpy.random as r\nr.seed(1); r.normal()",
    ],
)
def test_what_the_code_has_seeded_in_numpy_goes_on(numpy_runner: Runner, setup: str) -> None:
    numpy_runner.run(setup)
    assert len(set(drawn(numpy_runner, NUMPY))) == 1


@pytest.mark.parametrize(
    "setup",
    [
        "numpy.random.normal()",
        "numpy.random.seed(1)\nnumpy.random.seed()",
        "numpy.random.seed(1)\nnumpy.random.seed(None)",
        "numpy.random.seed(1)\nnumpy.random.seed(seed=None)",
        "numpy.random.default_rng(1).random(); numpy.random.RandomState(1).random()",
    ],
)
def test_what_the_code_has_not_seeded_in_numpy_is_another(numpy_runner: Runner, setup: str) -> None:
    numpy_runner.run(setup)
    assert len(set(drawn(numpy_runner, NUMPY))) == 5


def test_one_module_is_fixed_and_the_other_is_not(runner: Runner) -> None:
    runner.run("import numpy, random; random.seed(1)")
    assert len({copied(runner, PYTHON) for _ in range(2)}) == 1
    assert len({copied(runner, NUMPY) for _ in range(2)}) == 2
    runner.run("random.seed(); numpy.random.seed(1)")
    assert len({copied(runner, PYTHON) for _ in range(2)}) == 2
    assert len({copied(runner, NUMPY) for _ in range(2)}) == 1


def test_a_module_that_appears_later_is_heard_of_too(runner: Runner) -> None:
    runner.run("import random; random.seed(1)")
    later = runner.fork().wake()
    later.run("import numpy; numpy.random.seed(1)")
    assert len(set(drawn(later, f"{PYTHON}, {NUMPY}"))) == 1
    runner.run("import numpy")
    assert len({copied(runner, NUMPY) for _ in range(2)}) == 2


def test_what_a_library_has_seeded_is_fixed_and_its_imports_are_heard(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "seeding.py").write_text("import random\nfrom random import seed\nseed(5)\n")
    runner.run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    runner.run("import seeding")
    assert len(set(drawn(runner, f"import random\n{PYTHON}"))) == 1


IMPORTS = pytest.mark.parametrize(
    "imported",
    [
        "import importlib; random = importlib.import_module('random')",
        "random = __import__('random')",
        "import tempfile, sys; random = sys.modules['random']",
    ],
    ids=["importlib", "__import__", "by a library"],
)


@IMPORTS
def test_however_it_was_imported_its_seed_holds(runner: Runner, imported: str) -> None:
    runner.run(f"{imported}; random.seed(1)")
    assert len(set(drawn(runner, PYTHON))) == 1
    runner.run("import random, json")  # heard of at the latest now
    assert len(set(drawn(runner, PYTHON))) == 1


@IMPORTS
def test_however_it_was_imported_it_is_another_in_every_copy(runner: Runner, imported: str) -> None:
    runner.run(f"{imported}; random.random()")
    assert len(set(drawn(runner, PYTHON))) == 5


def test_the_original_draws_what_it_would_without_any_copy(runner: Runner) -> None:
    draws = f"[{PYTHON}, {PYTHON}, {NUMPY}]"
    runner.run("import random, numpy; random.seed(7); numpy.random.seed(7)")
    without = runner.run(f"{draws}, {draws}")
    runner.run("random.seed(7); numpy.random.seed(7)")
    first = runner.run(draws)
    copied(runner, draws)
    runner.fork().fork()
    assert f"({first}, {runner.run(draws)})" == without


def test_many_generations_later_it_still_holds(runner: Runner) -> None:
    runner.run("import random; random.seed(3)")
    generation = runner
    for _ in range(8):
        generation.run(PYTHON)
        generation = generation.fork().wake()
    assert generation.run(PYTHON) == runner.run("random.seed(3); [random.random() for _ in range(9)][8]")


def test_generators_that_the_code_makes_itself_are_its_own(runner: Runner) -> None:
    runner.run("import random, numpy; random.seed(1); numpy.random.seed(1)")
    runner.run("mine, other, legacy = random.Random(5), numpy.random.default_rng(5), numpy.random.RandomState(5)")
    runner.run("unfixed = random.Random()")
    runner.run("mine.random(); random.seed(); numpy.random.seed()")
    draw = "[float(each.random()) for each in (mine, other, legacy, unfixed)]"
    assert len(set(drawn(runner, draw))) == 1


@pytest.mark.parametrize("seeded", [True, False], ids=["seeded", "not seeded"])
@pytest.mark.parametrize(
    "broken",
    [
        "random.seed = lambda *_: None",
        "random.seed = random.getstate = random.setstate = lambda *_: 1 / 0",
        "del random.seed, random.setstate, random.getstate",
        "import sys; sys.modules['random'] = None",
        "import sys; del sys.modules['random']",
        "import sys; random.seed = random.getstate = lambda *_: sys.exit()",
    ],
)
def test_what_user_code_has_broken_keeps_no_copy_from_being_made(runner: Runner, broken: str, seeded: bool) -> None:
    runner.run(f"import random; draw = random.random; {'random.seed(1)' if seeded else 'pass'}")
    runner.run(broken)
    assert len(set(drawn(runner, "draw()"))) == (1 if seeded else 5)


def test_a_function_that_is_listened_to_looks_as_it_did(runner: Runner) -> None:
    runner.run("import random, inspect")
    said = runner.run("random.seed.__name__, random.seed.__doc__ == random.Random.seed.__doc__, random.seed(3)")
    assert said == "('seed', True, None)"
    assert runner.run("str(inspect.signature(random.seed))") == "'(a=None, version=2)'"


def test_numpy_is_not_loaded_only_to_be_listened_to(runner: Runner) -> None:
    copied(runner, "1")
    assert runner.run("import sys; 'numpy' in sys.modules") == "False"
