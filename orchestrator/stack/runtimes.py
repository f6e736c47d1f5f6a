"""Container runtimes: which the engine has, and of what kind they are.

A runtime is never replaced by another: one that the settings name is there or the start is refused, and a default that
is not like runc has to be named. Whether one works shows in the start of a container, which has a deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from orchestrator.errors import RuntimeUnavailable

# They make a container of the host's kernel: namespaces, control groups, a filter. By the engine's names for them.
LIKE_RUNC = frozenset(
    {"runc", "crun", "youki", "io.containerd.runc.v1", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux"}
)
# They bring a kernel of their own. By how the name, the program or the containerd shim of one begins.
OWN_KERNEL = ("runsc", "gvisor", "kata", "io.containerd.runsc", "io.containerd.kata")


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime as the engine knows it."""

    name: str
    program: str = ""  # its path, or its containerd shim

    @property
    def may_have_own_kernel(self) -> bool:
        """It is of a kind that brings a kernel; whether it did is read from inside."""
        return self.name.startswith(OWN_KERNEL) or PurePath(self.program).name.startswith(OWN_KERNEL)


def chosen(name: str, info: Mapping[str, Any]) -> Runtime:
    """The runtime of that name, from the engine's ``info``.

    Raises:
        RuntimeUnavailable: the engine does not have it; the message lists those that it has.
    """
    known: Mapping[str, Any] = info.get("Runtimes") or {}
    if name not in known:
        raise RuntimeUnavailable(
            f"the engine has no container runtime {name!r}; it has {', '.join(sorted(known)) or 'none'}. "
            'Register it in the engine\'s daemon.json under "runtimes", or change the setting `runtime`'
        )
    entry = known[name] if isinstance(known[name], Mapping) else {}
    return Runtime(name, str(entry.get("path") or entry.get("runtimeType") or ""))


def require_like_runc(name: str) -> Runtime:
    """The engine's default, which nobody chose.

    Raises:
        RuntimeUnavailable: it is not like runc.
    """
    if name not in LIKE_RUNC:
        raise RuntimeUnavailable(
            f"the engine's default runtime is {name!r}, which is not runc or like it; "
            f"set runtime = {name!r} if that is what you want, or runtime = 'runc'"
        )
    return Runtime(name)
