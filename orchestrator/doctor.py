"""``cellblock doctor``: what isolation this machine really gives, for people and for machines.

The form for machines is described in docs/isolation.md; ``SCHEMA`` counts up when a field goes or changes its meaning.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.config import Config
from orchestrator.errors import IsolationError
from orchestrator.policy import DEFAULT_AUTHORIZED_IMPORTS, top_level
from orchestrator.sandbox.engine import engine_version
from orchestrator.sandbox.environment import budgets
from orchestrator.sandbox.isolation import Isolation
from orchestrator.sandbox.layers import Layer, listed
from orchestrator.sandbox.levels import leaves_open
from orchestrator.sandbox.link import Link
from orchestrator.stack.advisories import RUNC, Advisory, Component, components, known_holes
from orchestrator.stack.image import image_tag

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        isolation: read from inside a container; None if none could be had, and ``error`` says why.
        minimum: the level that the settings ask for.
    """

    isolation: Isolation | None
    error: str
    minimum: int
    image: str
    parts: tuple[Component, ...]
    host_kernel: str

    @property
    def level(self) -> int:
        """The level that is reached; 0 if none is."""
        return self.isolation.level if self.isolation else 0

    @property
    def ok(self) -> bool:
        """A sandbox of these settings would be let start."""
        return self.level >= self.minimum

    @property
    def missing(self) -> tuple[Layer, ...]:
        """What keeps it from starting; or, if nothing does, what keeps it from the next level."""
        return self.isolation.missing(self.next_level) if self.isolation else ()

    @property
    def next_level(self) -> int:
        """The level that is asked for; or, if that is reached, the next one, if there is one."""
        return max(self.minimum, min(3, self.level + 1))

    @property
    def holes(self) -> tuple[Advisory, ...]:
        """What is known of these versions."""
        return known_holes(self.parts)

    def version_of(self, component: str) -> str:
        """Its version without the distribution's part; empty if the engine does not tell it."""
        full = next((part.version for part in self.parts if part.name == component), "")
        return full.partition("+")[0].partition("~")[0]


def diagnose(config: Config) -> Diagnosis:
    """Starts a container, reads what is in force in it, and removes it. Refuses nothing.

    Raises:
        EngineError: no engine, no image, or no such runtime.
        SandboxStartError: a container did not come up in time.
    """
    parts, image = components(engine_version(config)), config.image or image_tag()
    isolation, error = None, ""
    try:
        isolation = asyncio.run(_examined(config, image))
    except IsolationError as refusal:  # the engine did not even make it as asked
        error = str(refusal)
    return Diagnosis(isolation, error, config.min_isolation_level, image, parts, os.uname().release)


async def _examined(config: Config, image: str) -> Isolation:
    packages = top_level(DEFAULT_AUTHORIZED_IMPORTS)
    link = await Link.start(config, image, packages, budgets(config), judge=_refuse_nothing)
    await link.close()
    return link.isolation


def _refuse_nothing(isolation: Isolation, minimum: int) -> None:
    """All that is found is to be shown."""


# ------------------------------------------------------------------------------------------------------ for machines


def as_data(found: Diagnosis) -> dict[str, Any]:
    """Everything, as it is printed for machines."""
    inside = found.isolation
    return {
        "schema": SCHEMA,
        "ok": found.ok,
        "level": found.level,
        "min_isolation_level": found.minimum,
        "error": found.error,
        "image": found.image,
        "components": [dataclasses.asdict(part) for part in found.parts],
        "runtime": inside.runtime if inside else "",
        "kernel": {"host": found.host_kernel, "inside": inside.kernel if inside else ""},
        "cgroup_version": inside.cgroup_version if inside else 0,
        "landlock_abi": inside.landlock_abi if inside else 0,
        "python": inside.python_version if inside else "",
        "layers": [dataclasses.asdict(layer) for layer in inside.layers] if inside else [],
        "advisories": [
            {"id": a.id, "component": a.component, "what": a.what, "fixed_in": list(a.fixed_in)} for a in found.holes
        ],
        "not_protected_from": list(leaves_open(found.level)),
    }


# -------------------------------------------------------------------------------------------------------- for people


def brief(found: Diagnosis) -> str:
    """One line."""
    if found.isolation is None:
        return f"isolation: none: {found.error}"
    runtime = f"{found.isolation.runtime} {found.version_of(RUNC)}" if found.isolation.runtime == RUNC else ""
    abi = found.isolation.landlock_abi
    where = ", ".join(
        [
            (runtime or found.isolation.runtime).strip(),
            f"kernel {found.isolation.kernel}",
            f"landlock abi {abi}" if abi else "no landlock",
        ]
    )
    if found.ok:
        layers = [layer for layer in found.isolation.layers if 1 <= layer.level <= found.level and layer.in_force]
        verdict = f"all {len(layers)} layers in force"
    else:
        verdict = f"level {found.minimum} is asked for; missing: {listed(found.missing)}"
    holes = "; known holes in these versions, see `cellblock doctor`" if found.holes else ""
    return f"isolation: level {found.level} ({where}): {verdict}{holes}"


def show(found: Diagnosis, console: Console) -> None:
    """A table on a terminal, lines where it goes to a file or a pipe."""
    console.print(Text(brief(found)))
    if found.isolation:
        _show_layers(found.isolation.layers, console)
    told = {"engine parts": ", ".join(f"{part.name} {part.version}" for part in found.parts), "image": found.image}
    if found.isolation:
        told["control groups"] = f"version {found.isolation.cgroup_version}"
        told["python"] = found.isolation.python_version
    for name, value in told.items():
        console.print(Text(f"{name}: {value}"))
    if found.missing:
        console.print(Text(f"level {found.next_level} would need: {listed(found.missing)}"))
    for advisory in found.holes:
        console.print(
            Text(
                f"WARNING {advisory.id} ({advisory.component}): {advisory.what} "
                f"Repaired in {', '.join(advisory.fixed_in)}, or by your distribution.",
                "bold red",
            )
        )
    if found.level:
        console.print(Text(f"what level {found.level} leaves open:"))
        for sentence in leaves_open(found.level):
            console.print(Text(f"- {sentence}"))


def _show_layers(layers: Iterable[Layer], console: Console) -> None:
    if not console.is_terminal:
        for layer in layers:
            console.print(Text(f"{_word(layer):<7} {layer.name}: {layer.proof}"))
        return
    table = Table("in force", "level", "layer", "read from inside")
    for layer in layers:
        style = "" if layer.in_force else "bold red" if layer.level == 1 else "yellow"
        table.add_row(
            Text(_word(layer), style), str(layer.level) if layer.level else "-", Text(layer.name), Text(layer.proof)
        )
    console.print(table)


def _word(layer: Layer) -> str:
    return "yes" if layer.in_force else "NO" if layer.level == 1 else "no"
