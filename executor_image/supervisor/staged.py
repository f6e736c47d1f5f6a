"""What the launcher leaves to the supervisor."""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Staged:
    """The first runner process, the warden, and the ways to them. Both are this process's children."""

    runner_uid: int
    runner_pid: int
    runner: socket.socket
    pipes: tuple[int, int]  # what the runner's descriptors 1 and 2 write to
    warden_pid: int
    warden: socket.socket
    states: int  # processes that there is room for besides those of user code
    landlock_abi: int = 0  # the version that is in force for the runner, 0 for none
