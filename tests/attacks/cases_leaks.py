"""Section 3.8: what /proc, /sys, the environment and error texts tell."""

from __future__ import annotations

from tests.attacks.case import Case, Control, Layer, case, no_control
from tests.attacks.native import SYSCALL
from tests.attacks.target import Attack

MASKED = ["/proc/cmdline", "/proc/config.gz", "/proc/kallsyms", "/proc/interrupts", "/proc/keys", "/proc/key-users"]
EMPTY = "print({R} if open('{path}', 'rb').read(1) else 'empty')"
LISTED = "import random\nprint({R} if random._os.listdir('{path}') else 'empty')"
CLOSED = "PermissionError|FileNotFoundError|empty|No such process"
# The canary in the supervisor's environment is looked for in what this gives, as it is in everything.
ENVIRON = "print(open('/proc/{pid}/environ').read(), {R})"
EVERY_PROCESS = """
import random
os, got = random._os, []
for pid in filter(str.isdigit, os.listdir('/proc')):
    for name in ('cmdline', 'comm', 'status', 'environ', 'maps', 'mounts'):
        try: got.append(open(f'/proc/{pid}/{name}').read())
        except OSError: pass
    try: got += [os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd')]
    except OSError: pass
''.join(got)
"""
NATIVE_ENVIRON = SYSCALL + (
    "text = ctypes.create_string_buffer(4096)\nfd = call(2, b'/proc/1/environ', 0)\n"
    "print(fd if isinstance(fd, str) else call(0, fd, text, 4095))\nprint(text.raw.replace(b'\\0', b' '))\n"
    "print('' if isinstance(fd, str) else {R})"
)
DIRTY = """
import numpy
found = [b'CANA' + b'RY' in numpy.empty(10**6, 'u1').tobytes() for _ in range(40)]
print({R} if any(found) else 'zeros, or its own')
"""


def tells_only_its_own_rules(attack: Attack) -> None:
    """The text of a refusal names what this sandbox may import, and nothing of another's."""
    error = attack.last.error
    assert error is not None
    assert "colorsys" not in error.value  # what the neighbour alone may import
    assert "/" not in error.value.replace("'", "")


def tells_no_session_folder(attack: Attack) -> None:
    """Neither where the session's folder is on the host, nor what it is called."""
    folder = attack.target.folder
    assert folder.name not in attack.whole_text
    assert str(folder.parent) not in attack.whole_text


def _proc() -> list[Case]:
    letters = iter("bcdefghijk")
    return [
        case(
            "INF-01",
            "the supervisor's environment is read",
            ENVIRON.replace("{pid}", "1"),
            held_by=Layer.USERS,
            says="PermissionError",
            control=Control(shows="CANARY-E"),
        ),
        case(
            "INF-01b",
            "the supervisor's environment is read by native code",
            NATIVE_ENVIRON,
            held_by=Layer.USERS,
            native=True,
            denied=True,
            says="EACCES",
        ),
        case(
            "INF-02",
            "what /proc tells of all processes has a secret, or the path of the session's folder",
            EVERY_PROCESS,
            held_by=Layer.CONTAINER,
            check=tells_no_session_folder,
            control=Control(shows="CANARY-E"),
            note="the canaries are looked for in all that it can read: token and environment among them; not "
            "mountinfo: that is INF-05",
        ),
        *(
            case(
                f"INF-0{7 if 'key' in path else 4}{'' if path in ('/proc/cmdline', '/proc/keys') else next(letters)}",
                f"{path} tells something",
                EMPTY.replace("{path}", path),
                held_by=Layer.CONTAINER,
                says=CLOSED,
                control=Control(absent="FileNotFoundError|empty"),
            )
            for path in MASKED
        ),
        *(
            case(
                f"INF-04{next(letters)}",
                f"{path} lists something",
                LISTED.replace("{path}", path),
                held_by=Layer.CONTAINER,
                says=CLOSED,
                control=Control(absent="FileNotFoundError|empty"),
            )
            for path in ("/sys/module", "/sys/class", "/sys/kernel", "/sys/block")
        ),
        case(
            "INF-05",
            "the list of mounts is read",
            "print({R} if 'workspace' in open('/proc/self/mountinfo').read() else '')",
            held_by=Layer.LANDLOCK,
            says="PermissionError|FileNotFoundError",
            control=Control(
                steps=("print({R} if 'overlay' in open('/proc/self/mountinfo').read() else '')",),
                reason="there the workspace is mounted elsewhere",
            ),
            note="without Landlock it tells where the engine keeps its layers, and where the session's folder is",
        ),
        case(
            "INF-08",
            "the number of processors is told",
            "import random\nprint({R} if random._os.cpu_count() else '')",
            held_by=Layer.NOTHING,
            note="the limits that it has, and how many processors there are: libraries ask for it at their start",
        ),
    ]


def _others() -> list[Case]:
    return [
        case(
            "INF-10",
            "fresh memory holds what was somebody else's",
            DIRTY,
            held_by=Layer.CONTAINER,
            says="zeros, or its own",
            control=no_control("no kernel gives out a page that it has not emptied"),
        ),
        case(
            "INF-11",
            "the text of a refused import tells of other sessions or of paths",
            "import socket\n{R}",
            held_by=Layer.POLICY,
            denied=True,
            check=lambda attack: tells_only_its_own_rules(attack) if attack.cell.policy else None,
            note="with the policy off nothing is refused, and so nothing told",
        ),
    ]


CASES = [*_proc(), *_others()]
