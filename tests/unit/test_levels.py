"""The levels of isolation: which is reached by what was found, what is refused below the minimum, what is left open."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from executor_api.v1 import executor_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import IsolationError
from orchestrator.sandbox.isolation import Isolation, examine, require
from orchestrator.sandbox.layers import Layer
from orchestrator.sandbox.levels import ALWAYS_OPEN, LEVELS, leaves_open
from tests.unit.ready import ASKED, LANDLOCK, OWN_KERNEL, good


def with_landlock(ready: pb.Ready, abi: int = 7) -> pb.Ready:
    ready.landlock_abi = abi
    return ready


def on_another_kernel(ready: pb.Ready) -> pb.Ready:
    ready.kernel, ready.kernel_build = "4.19.0-gvisor", "#1 SMP Sun Jan 10 15:06:54 PST 2016"
    return ready


SANDBOXED = dataclasses.replace(ASKED, runtime="runsc", may_have_own_kernel=True)


def test_the_first_level_is_reached_without_landlock_and_the_second_with_it() -> None:
    assert examine(good(), ASKED).level == 1
    for abi in (1, 5, 6, 9):
        found = examine(with_landlock(good(), abi), ASKED)
        assert (found.level, found.landlock_abi) == (2, abi)


@pytest.mark.parametrize("prepare", [lambda ready: ready, with_landlock])
def test_the_third_level_is_reached_on_a_kernel_of_its_own_with_landlock_or_without(
    prepare: Callable[[pb.Ready], pb.Ready],
) -> None:
    assert examine(on_another_kernel(prepare(good())), SANDBOXED).level == 3


@pytest.mark.parametrize("change", [("6.12.0", "#2 SMP"), ("6.12.1", "#1 SMP"), ("4.4.0", "#1 SMP Sun Jan 10")])
def test_a_kernel_is_another_if_its_release_or_its_build_is(change: tuple[str, str]) -> None:
    ready = good()
    ready.kernel, ready.kernel_build = change
    assert examine(ready, SANDBOXED).level == 3


def test_a_runtime_that_could_have_a_kernel_and_shows_the_hosts_is_not_the_third_level() -> None:
    assert examine(good(), SANDBOXED).level == 1


def test_another_kernel_on_a_runtime_that_has_none_is_not_the_third_level() -> None:
    assert examine(on_another_kernel(good()), ASKED).level == 1


def test_no_kernel_at_all_is_not_another() -> None:
    ready = good()
    ready.kernel = ""
    assert examine(ready, SANDBOXED).level == 1


def test_what_the_kernel_of_a_runtime_shows_of_itself_is_not_the_hosts() -> None:
    ready = on_another_kernel(good())
    ready.unmasked_paths.append("/sys/devices")
    ready.writable_paths.append("/proc/sys")
    assert examine(ready, SANDBOXED).level == 3
    assert examine(ready, ASKED).level == 0


def test_a_level_below_the_minimum_is_refused_and_says_what_is_missing() -> None:
    found = examine(good(), ASKED)
    require(found, 1)
    for minimum, missing in ((2, LANDLOCK), (3, OWN_KERNEL)):
        with pytest.raises(IsolationError) as caught:
            require(found, minimum)
        assert missing in str(caught.value)
        assert f"level 1, and min_isolation_level is {minimum}" in str(caught.value)
    require(examine(with_landlock(good()), ASKED), 2)
    require(examine(on_another_kernel(good()), SANDBOXED), 3)
    require(examine(on_another_kernel(good()), SANDBOXED), 2)


@given(st.lists(st.builds(Layer, st.text(), st.booleans(), st.text(), st.integers(0, 3)), max_size=8))
def test_a_level_is_reached_exactly_if_all_that_it_needs_is_in_force(layers: list[Layer]) -> None:
    found = Isolation(tuple(layers), "", 2, "")
    holds = {n: [layer.in_force for layer in layers if layer.level == n] for n in (1, 2, 3)}
    one, two, three = (bool(holds[n]) and all(holds[n]) for n in (1, 2, 3))  # nothing at all proves nothing
    assert found.level == (0 if not one else 3 if three else 2 if two else 1)
    assert found.complete == one


def test_what_each_level_leaves_open_is_said_in_one_sentence() -> None:
    assert [level.number for level in LEVELS] == [1, 2, 3]
    for level in LEVELS:
        assert leaves_open(level.number) == (level.leaves_open, *ALWAYS_OPEN)
    for sentence in (*(level.leaves_open for level in LEVELS), *(level.means for level in LEVELS), *ALWAYS_OPEN):
        assert sentence.endswith(".")
        assert ". " not in sentence
