"""Container runtimes: named and there, or refused; never another one in its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import EngineError, RuntimeUnavailable
from orchestrator.stack.runtimes import LIKE_RUNC, Runtime, chosen, require_like_runc

INFO: dict[str, Any] = {
    "DefaultRuntime": "runc",
    "Runtimes": {
        "runc": {"path": "runc"},
        "runsc": {"path": "/usr/local/bin/runsc"},
        "strong": {"path": "/opt/gvisor/runsc", "runtimeArgs": ["--platform=kvm"]},
        "vm": {"runtimeType": "io.containerd.kata.v2"},
        "kata-fc": {"path": "/opt/kata/bin/anything"},
        "gpu": {"path": "nvidia-container-runtime"},
        "odd": None,
    },
}


@pytest.mark.parametrize(
    ("name", "own_kernel"),
    [
        ("runc", False),
        ("runsc", True),
        ("strong", True),
        ("vm", True),
        ("kata-fc", True),
        ("gpu", False),
        ("odd", False),
    ],
)
def test_the_kind_of_a_runtime_is_told_by_its_name_or_its_program(name: str, own_kernel: bool) -> None:
    runtime = chosen(name, INFO)
    assert (runtime.name, runtime.may_have_own_kernel) == (name, own_kernel)


@pytest.mark.parametrize("name", ["kata", "RUNC", "runc ", "/usr/bin/runc", "io.containerd.kata.v2"])
def test_one_that_the_engine_does_not_have_is_refused_with_those_that_it_has(name: str) -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        chosen(name, INFO)
    assert repr(name) in str(caught.value)
    assert "it has gpu, kata-fc, odd, runc, runsc, strong, vm" in str(caught.value)
    assert isinstance(caught.value, EngineError)


@pytest.mark.parametrize("info", [{}, {"Runtimes": None}, {"Runtimes": {}}])
def test_an_engine_that_tells_none_has_none(info: dict[str, Any]) -> None:
    with pytest.raises(RuntimeUnavailable, match="it has none"):
        chosen("runc", info)


@pytest.mark.parametrize("name", sorted(LIKE_RUNC))
def test_a_default_like_runc_needs_no_setting(name: str) -> None:
    assert require_like_runc(name) == Runtime(name)
    assert not Runtime(name).may_have_own_kernel


@given(st.one_of(st.sampled_from(["runsc", "kata", "nvidia", "", "oci"]), st.text(max_size=20)))
def test_any_other_default_has_to_be_named(name: str) -> None:
    if name not in LIKE_RUNC:
        with pytest.raises(RuntimeUnavailable, match="not runc or like it; set runtime ="):
            require_like_runc(name)
