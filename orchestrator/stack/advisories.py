"""Versions of engine, containerd and runc with known holes that concern a sandbox. Data, and how versions compare.

A warning, never a refusal: what a distribution has repaired in an old version cannot always be told from its number.
The vendors' own notices are the sources; each is found by its id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ENGINE, CONTAINERD, RUNC = "Engine", "containerd", "runc"  # as the engine names its components
_FINAL = 1 << 30  # sorts a release after its release candidates
_NUMBERS = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")
_CANDIDATE = re.compile(r"[-~.]?(alpha|beta|rc)\.?(\d*)")
_STAGES = {"alpha": 0, "beta": 1, "rc": 2}
_REPAIRED = re.compile(r"(?P<package>.+)u(?P<update>\d+)")  # Debian's stable updates: 1.1.5+ds1-1+deb12u1


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Upstream's part of a version, as it sorts: ``1.0.0~rc93+ds1-5+deb11u3`` is 1.0.0, release candidate 93."""

    major: int
    minor: int
    patch: int
    stage: int = _FINAL
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """The version that a text begins with; None if it begins with none."""
        match = _NUMBERS.match(text.strip())
        if match is None:
            return None
        parts = int(match[1]), int(match[2]), int(match[3] or 0)
        if candidate := _CANDIDATE.match(text.strip(), match.end()):
            return cls(*parts, _STAGES[candidate[1]], int(candidate[2] or 0))
        return cls(*parts)

    @property
    def branch(self) -> tuple[int, int]:
        """Versions of one branch get their own repair."""
        return self.major, self.minor


@dataclass(frozen=True, slots=True)
class Advisory:
    """A known hole.

    Attributes:
        what: what can happen, in one sentence.
        fixed_in: the first repaired version of each branch that was repaired.
        since: the first version that has it; empty: all before the repair.
        repaired_by: packages in which a distribution has repaired an older version.
    """

    id: str
    component: str
    what: str
    fixed_in: tuple[str, ...]
    since: str = ""
    repaired_by: tuple[str, ...] = ()

    def concerns(self, version: str) -> bool:
        """True if that version has the hole, or may have it: its branch was not repaired, and a later one was."""
        found = Version.parse(version)
        if found is None or any(_has_update(version, package) for package in self.repaired_by):
            return False
        if self.since and found < _known(self.since):
            return False
        repaired = [_known(fixed) for fixed in self.fixed_in]
        of_its_branch = [fixed for fixed in repaired if fixed.branch == found.branch]
        return found < (of_its_branch[0] if of_its_branch else max(repaired))


def _known(text: str) -> Version:
    version = Version.parse(text)
    if version is None:
        raise ValueError(text)
    return version


def _has_update(version: str, package: str) -> bool:
    """``version`` is that package, or a later update of the same one."""
    ours, theirs = _REPAIRED.fullmatch(version), _REPAIRED.fullmatch(package)
    return bool(
        ours and theirs and ours["package"] == theirs["package"] and int(ours["update"]) >= int(theirs["update"])
    )


ADVISORIES = (
    Advisory(
        "CVE-2019-5736",
        RUNC,
        "Root in a container can overwrite the runc program on the host.",
        ("1.0.0-rc7",),
    ),
    Advisory(
        "CVE-2021-30465",
        RUNC,
        "Containers that share a mount can have a folder of the host mounted, by exchanging a link in time.",
        ("1.0.0-rc95",),
    ),
    Advisory(
        "CVE-2023-27561, CVE-2023-28642",
        RUNC,
        "AppArmor and SELinux can be got round by an image in which /proc is a link.",
        ("1.1.5",),
        since="1.0.0-rc95",
    ),
    Advisory(
        "CVE-2024-21626",
        RUNC,
        "A container can reach the host's files through a descriptor that runc leaks.",
        ("1.1.12",),
        since="1.0.0-rc93",
        repaired_by=("1.1.5+ds1-1+deb12u1", "1.0.0~rc93+ds1-5+deb11u3"),
    ),
    Advisory(
        "CVE-2024-45310",
        RUNC,
        "Containers that share a volume can have empty files and folders made on the host.",
        ("1.1.14", "1.2.0-rc.3"),
    ),
    Advisory(
        "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881",
        RUNC,
        "A container whose /dev/null or /dev/pts is exchanged while it is made can write to /proc of the host, "
        "and so break out.",
        ("1.2.8", "1.3.3", "1.4.0-rc.3"),
    ),
    Advisory(
        "CVE-2026-41579",
        RUNC,
        "An image in which /dev is a link has limited write access to the host's files.",
        ("1.3.6", "1.4.3", "1.5.0-rc.3"),
    ),
    Advisory(
        "CVE-2022-24769",
        ENGINE,
        "Containers start with inheritable capabilities that they should not have.",
        ("20.10.14",),
    ),
    Advisory(
        "CVE-2024-24557",
        ENGINE,
        "The classic builder, which makes the executor image, can be given a poisoned image as its cache.",
        ("24.0.9", "25.0.2"),
    ),
    Advisory(
        "CVE-2024-41110",
        ENGINE,
        "A request without a body gets past authorization plugins.",
        ("23.0.15", "25.0.6", "26.1.5", "27.1.1"),
        repaired_by=("20.10.24+dfsg1-1+deb12u1",),
    ),
    Advisory(
        "CVE-2026-34040",
        ENGINE,
        "A request with a very large body gets past authorization plugins.",
        ("29.3.1",),
    ),
    Advisory(
        "CVE-2026-41567, CVE-2026-41568, CVE-2026-42306",
        ENGINE,
        "`docker cp` on a hostile container runs its programs as root on the host, or writes to the host "
        "(cellblock never copies that way; nor should you).",
        ("29.5.1",),
    ),
    Advisory(
        "CVE-2026-17106",
        ENGINE,
        "`docker cp` from a hostile container overwrites files of the host (cellblock never copies that way).",
        ("29.7.0",),
    ),
    Advisory(
        "CVE-2024-25621",
        CONTAINERD,
        "Other users of the host can enter folders of containerd's in which containers' data lie.",
        ("1.7.29", "2.0.7", "2.1.5", "2.2.0"),
        repaired_by=("1.6.20~ds1-1+deb12u2",),
    ),
)


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the engine, with the fullest version that it tells."""

    name: str
    version: str


def components(version: Mapping[str, Any]) -> tuple[Component, ...]:
    """Engine, containerd, runc and others, from the engine's answer to ``version``.

    A distribution's package number, where the engine tells it as the commit it was built from, says more than the
    version: it names the repairs that were taken over.
    """
    found = []
    for entry in version.get("Components") or [{"Name": ENGINE, "Version": version.get("Version", "")}]:
        upstream = str(entry.get("Version", ""))
        commit = str((entry.get("Details") or {}).get("GitCommit", ""))
        found.append(
            Component(str(entry.get("Name", "")), commit if upstream and commit.startswith(upstream) else upstream)
        )
    return tuple(found)


def known_holes(parts: Iterable[Component]) -> tuple[Advisory, ...]:
    """What is known of these versions."""
    by_name = {part.name: part.version for part in parts}
    return tuple(a for a in ADVISORIES if a.component in by_name and a.concerns(by_name[a.component]))
