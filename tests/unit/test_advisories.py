"""Known holes: how versions sort, which versions an entry concerns, and what the engine tells of its parts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.stack.advisories import (
    ADVISORIES,
    CONTAINERD,
    ENGINE,
    RUNC,
    Advisory,
    Component,
    Version,
    components,
    known_holes,
)

# As Docker 20.10 of Debian 12 answers to /version.
DEBIAN = {
    "Version": "20.10.24+dfsg1",
    "Components": [
        {"Name": "Engine", "Version": "20.10.24+dfsg1", "Details": {"GitCommit": "5d6db84"}},
        {"Name": "containerd", "Version": "1.6.20~ds1", "Details": {"GitCommit": "1.6.20~ds1-1+deb12u3"}},
        {"Name": "runc", "Version": "1.1.5+ds1", "Details": {"GitCommit": "1.1.5+ds1-1+deb12u1"}},
        {"Name": "docker-init", "Version": "0.19.0", "Details": {"GitCommit": ""}},
    ],
}


def concerned(component: str, version: str) -> set[str]:
    found = known_holes([Component(component, version)])
    return {name for advisory in found for name in advisory.id.split(", ")}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.1.5", Version(1, 1, 5)),
        ("v1.1.5", Version(1, 1, 5)),
        ("1.1.5+ds1-1+deb12u1", Version(1, 1, 5)),
        ("20.10.24+dfsg1", Version(20, 10, 24)),
        ("28.5.1-1~ubuntu.24.04~noble", Version(28, 5, 1)),
        ("1.6.20~ds1-1", Version(1, 6, 20)),
        ("1.4.0-rc.3", Version(1, 4, 0, 2, 3)),
        ("1.0.0-rc93", Version(1, 0, 0, 2, 93)),
        ("1.0.0~rc93+ds1-5+deb11u3", Version(1, 0, 0, 2, 93)),
        ("1.0-rc95", Version(1, 0, 0, 2, 95)),
        ("29.0.0-beta.1", Version(29, 0, 0, 1, 1)),
        ("1.2", Version(1, 2, 0)),
        ("", None),
        ("unknown", None),
        ("5d6db84", None),
    ],
)
def test_a_version_is_read_whoever_packaged_it(text: str, version: Version | None) -> None:
    assert Version.parse(text) == version


def test_versions_sort_as_they_were_released() -> None:
    order = ["1.0.0-rc7", "1.0.0-rc93", "1.0.0~rc95+ds1", "1.0.0", "1.1.5+ds1", "1.1.12", "1.2.0-beta.1", "1.2.0-rc.3"]
    order += ["1.2.0", "1.2.8", "1.10.0", "20.10.24+dfsg1", "28.5.2"]
    read = [Version.parse(text) for text in order]
    assert read == sorted(read, key=lambda version: version or Version(0, 0, 0))


@given(*[st.integers(0, 999)] * 3, st.sampled_from(["", "+ds1-1", "-1~ubuntu.22.04", "~ds1", "+dfsg1-1+deb12u9"]))
def test_what_a_distribution_appends_changes_nothing(major: int, minor: int, patch: int, more: str) -> None:
    assert Version.parse(f"{major}.{minor}.{patch}{more}") == Version(major, minor, patch)


@pytest.mark.parametrize(
    ("component", "version", "has", "has_not"),
    [
        (RUNC, "1.0.0-rc6", "CVE-2019-5736", "CVE-2024-21626"),
        (RUNC, "1.0.0-rc94", "CVE-2021-30465", "CVE-2019-5736"),
        (RUNC, "1.1.4", "CVE-2023-27561", "CVE-2021-30465"),
        (RUNC, "1.1.11", "CVE-2024-21626", "CVE-2023-27561"),
        (RUNC, "1.1.5+ds1-1", "CVE-2024-21626", "CVE-2023-28642"),
        (RUNC, "1.1.5+ds1-1+deb12u1", "CVE-2024-45310", "CVE-2024-21626"),  # repaired by the distribution
        (RUNC, "1.1.5+ds1-1+deb12u10", "CVE-2025-31133", "CVE-2024-21626"),
        (RUNC, "1.0.0~rc93+ds1-5+deb11u2", "CVE-2024-21626", "CVE-2019-5736"),
        (RUNC, "1.0.0~rc93+ds1-5+deb11u3", "CVE-2021-30465", "CVE-2024-21626"),
        (RUNC, "1.0.0~rc93+ds1-5+deb11u10", "CVE-2021-30465", "CVE-2024-21626"),
        (RUNC, "1.1.15", "CVE-2025-52881", "CVE-2024-45310"),  # of a branch that got no repair
        (RUNC, "1.2.7", "CVE-2025-52565", "CVE-2024-45310"),
        (RUNC, "1.2.9", "CVE-2026-41579", "CVE-2025-31133"),
        (RUNC, "1.3.2", "CVE-2025-31133", "CVE-2024-45310"),
        (RUNC, "1.3.3", "CVE-2026-41579", "CVE-2025-31133"),
        (RUNC, "1.4.0-rc.2", "CVE-2025-31133", "CVE-2024-45310"),
        (RUNC, "1.4.0", "CVE-2026-41579", "CVE-2025-31133"),
        (RUNC, "1.4.3", "", "CVE-2026-41579"),
        (RUNC, "2.0.0", "", "CVE-2026-41579"),
        (ENGINE, "20.10.24+dfsg1", "CVE-2024-41110", "CVE-2022-24769"),
        (ENGINE, "20.10.24+dfsg1-1+deb12u1", "CVE-2024-24557", "CVE-2024-41110"),
        (ENGINE, "25.0.1", "CVE-2024-24557", "CVE-2022-24769"),
        (ENGINE, "25.0.6", "CVE-2026-34040", "CVE-2024-41110"),
        (ENGINE, "26.1.4", "CVE-2024-41110", "CVE-2024-24557"),
        (ENGINE, "27.1.1", "CVE-2026-41567", "CVE-2024-41110"),
        (ENGINE, "29.5.1", "CVE-2026-17106", "CVE-2026-41568"),
        (ENGINE, "29.9.0", "", "CVE-2026-17106"),
        (CONTAINERD, "1.6.20~ds1-1+deb12u1", "CVE-2024-25621", ""),
        (CONTAINERD, "1.6.20~ds1-1+deb12u3", "", "CVE-2024-25621"),
        (CONTAINERD, "2.1.4", "CVE-2024-25621", ""),
        (CONTAINERD, "2.2.0", "", "CVE-2024-25621"),
    ],
)
def test_a_version_is_concerned_by_what_was_not_yet_repaired_in_it(
    component: str, version: str, has: str, has_not: str
) -> None:
    found = concerned(component, version)
    assert has in found or not has
    assert has_not not in found


def test_what_cannot_be_read_is_concerned_by_nothing_and_another_component_neither() -> None:
    assert known_holes([Component(RUNC, "unknown"), Component("crun", "0.1.0")]) == ()


def test_every_entry_can_be_read_and_says_what_can_happen() -> None:
    for entry in ADVISORIES:
        assert re.fullmatch(r"(CVE-\d{4}-\d{4,}(, )?)+", entry.id)
        assert entry.component in (ENGINE, CONTAINERD, RUNC)
        assert entry.what.endswith((".", ")."))
        assert len({Version.parse(text).branch for text in entry.fixed_in}) == len(entry.fixed_in)  # type: ignore[union-attr]
        assert all(not entry.concerns(text) for text in entry.fixed_in)
        assert not any(entry.concerns(package) for package in entry.repaired_by)
    assert len({entry.id for entry in ADVISORIES}) == len(ADVISORIES)


def test_an_entry_without_a_repair_of_a_branch_concerns_all_of_that_branch() -> None:
    entry = Advisory("CVE-0000-0000", RUNC, "x.", ("1.2.8", "1.4.1"), since="1.1.0")
    assert [entry.concerns(v) for v in ("1.0.9", "1.1.99", "1.2.7", "1.2.8", "1.3.99", "1.4.0", "1.4.1", "1.5.0")] == [
        *(False, True, True, False, True, True, False, False)
    ]


def test_the_engine_tells_its_parts_with_the_distributions_number_where_it_knows_it() -> None:
    parts = {part.name: part.version for part in components(DEBIAN)}
    assert parts == {
        "Engine": "20.10.24+dfsg1",
        "containerd": "1.6.20~ds1-1+deb12u3",
        "runc": "1.1.5+ds1-1+deb12u1",
        "docker-init": "0.19.0",
    }


@pytest.mark.parametrize("answer", [{"Version": "18.06.0"}, {"Version": "18.06.0", "Components": None}])
def test_an_engine_that_tells_no_parts_is_one(answer: dict[str, object]) -> None:
    assert components(answer) == (Component(ENGINE, "18.06.0"),)


def test_a_part_without_a_version_is_no_commit() -> None:
    answer = {"Components": [{"Name": "runc", "Version": "", "Details": {"GitCommit": "v1.0.0-0-gabc"}}, {"Name": "x"}]}
    assert components(answer) == (Component("runc", ""), Component("x", ""))
