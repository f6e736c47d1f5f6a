"""The levels of isolation: what each is and what it leaves open. Data, for ``cellblock doctor`` and documentation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Level:
    """How far a sandbox is shut off. The second has what the first has; the third may lack what is the second's.

    Attributes:
        means: what it consists of.
        leaves_open: what it does not protect from, in one sentence.
    """

    number: int
    means: str
    leaves_open: str


LEVELS = (
    Level(
        1,
        "A container by the engine's own means, a system call filter, two unprivileged users.",
        "Code can read every file of the image, packages that were not granted among them, and can attack the host's "
        "kernel through the system calls that are allowed.",
    ),
    Level(
        2,
        "Level 1, and the runner sees its own installation and the granted packages alone (Landlock).",
        "Code can attack the host's kernel through the system calls that are allowed: a hole in one of them is a way "
        "to the host.",
    ),
    Level(
        3,
        "Level 1 or 2 on a runtime with a kernel of its own (gVisor, Kata Containers).",
        "A hole in the runtime's kernel, followed by one in what that kernel asks of the host, is a way to the host.",
    ),
)
# At every level.
ALWAYS_OPEN = (
    "Sandboxes on one machine share the processor's caches: side channels.",
    "Root on the host, and whoever may use the Docker engine, can do everything.",
    "A tool that was granted does on the host what it is told to.",
    "A result is whatever the code wants it to be.",
)


def leaves_open(level: int) -> tuple[str, ...]:
    """What a sandbox of this level does not protect from; of level 0, which is refused, nothing is said."""
    return (*(each.leaves_open for each in LEVELS if each.number == level), *ALWAYS_OPEN) if level else ()
