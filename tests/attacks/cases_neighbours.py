"""Sections 3.9 and, of 3.13, time: what one session can do to another, on the same host and of the same image."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.case import Case, Control, Layer, NotHere, case, no_control
from tests.attacks.native import SYSCALL
from tests.attacks.preludes import OS
from tests.attacks.target import Attack
from tests.endings import OK

LEAVE = (
    f"{OS}import json\nleft = 'here'\njson.dumps = os.sys.modules['json'].left = None\n"
    "for name in ('/workspace/left', '/tmp/left', os.path.expanduser('~/left')): open(name, 'w').write('here')"
)
LOOK = (
    "import json, random\nos = random._os\nfound = [n for n in ('/workspace/left', '/tmp/left') if os.path.exists(n)]\n"
    "[*found, *(['variable'] if 'left' in globals() else []), *(['module'] if json.dumps is None else [])]"
)
RANDOM = (
    "import random, uuid, numpy\ndraws = (random.random, numpy.random.random, numpy.random.default_rng().random)\n"
    "(str(uuid.uuid4()), hash('x'), *(float(draw()) for draw in draws))"
)
# As much as one user may have, of what the kernel counts for a user and not for a process or a container.
QUOTAS = (
    OS
    + """
pipes = []
try:
    for _ in range(100): pipes += os.pipe()
except OSError: pass
made = []
for _ in range(200):
    try: pid = os.fork()
    except OSError: break
    if not pid: os.read(os.pipe()[0], 1)
    made.append(pid)
len(made)
"""
)
ASKED_FOR = 200  # inotifies; a user may have 128, unless the machine is set otherwise
INOTIFY_QUOTA = (
    SYSCALL
    + f"fds = [call(294, 0) for _ in range({ASKED_FOR})]\nprint(fds[-1])\n"
    + "len([fd for fd in fds if isinstance(fd, int)])"
)
USES_INOTIFY = SYSCALL + "got = call(294, 0)\ncall(3, got) if isinstance(got, int) else None\ngot"
USES_QUOTAS = (
    OS + "ends = [os.pipe() for _ in range(8)]\npid = os.fork()\nif not pid: os._exit(0)\n"
    "os.waitpid(pid, 0)[1] == 0 and len(ends)"
)
SHARED_PAGE = (
    "import mmap\nfile = open('/opt/py/lib/python3.13/json/__init__.py', 'rb')\n"
    "page = mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)\n"
    "page[0:1] = page[0:1]\n{R}"
)


def neighbour_has_none_of_it(attack: Attack) -> None:
    """What was left in one is found there, and nothing of it in the other."""
    assert len(attack.target.value(LOOK)) == 4
    assert attack.target.neighbour.look(LOOK) == []


def neighbour_draws_others(attack: Attack) -> None:
    """No number, id or hash of the two is the same."""
    theirs = attack.target.neighbour.look(RANDOM)
    assert len(theirs) == len(attack.last.value)
    assert all(a != b for a, b in zip(attack.last.value, theirs, strict=True))


def neighbour_has_its_own_share(attack: Attack) -> None:
    """The neighbour gets processes and pipes of its own."""
    assert attack.target.neighbour.look(USES_QUOTAS) == 8


def neighbour_has_its_own_inotifies(attack: Attack) -> None:
    """There are none left for the one, and one for the other."""
    most = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if attack.last.ok and most < ASKED_FOR:
        assert attack.last.value < ASKED_FOR, "they were not used up, which shows nothing"
    got = attack.target.neighbour.look(USES_INOTIFY)
    assert isinstance(got, int), got


def _cases() -> list[Case]:
    two = no_control("it is about two sandboxes; that what is left is found where it was left is part of the check")
    return [
        case(
            "XSN-01",
            "a variable, a patched module or a file of one sandbox is found in another",
            LEAVE,
            held_by=Layer.CONTAINER,
            endings=(OK,),
            control=two,
            check=neighbour_has_none_of_it,
            note="XSN-02, files of workspace, home and temporary folder, is part of it",
        ),
        case(
            "XSN-05",
            "a user's share of processes and pipes, used up in one sandbox, is missed in another",
            QUOTAS,
            held_by=Layer.USERS,
            endings=(OK,),
            control=two,
            check=neighbour_has_its_own_share,
            may_spoil=True,  # on a busy machine it takes longer to end them all than it may
        ),
        case(
            "XSN-05b",
            "a user's share of inotifies, used up in one sandbox, is missed in another",
            INOTIFY_QUOTA,
            held_by=Layer.USERS,
            native=True,
            denied=True,
            control=two,
            check=neighbour_has_its_own_inotifies,
        ),
        case(
            "XSN-08",
            "random numbers of one sandbox are those of another",
            RANDOM,
            held_by=Layer.RUNNER,
            endings=(OK,),
            control=two,
            check=neighbour_draws_others,
        ),
        case(
            "XSN-10",
            "a page of the image that both share is written through a mapping",
            SHARED_PAGE,
            held_by=Layer.CONTAINER,
            denied=True,
            says="PermissionError",
            control=Control(
                steps=(SHARED_PAGE.replace("'rb'", "'r+b'"),), reason="there the file can be opened for writing"
            ),
        ),
        case(
            "TIM-01",
            "the load of the whole machine is read",
            "print({R} if 'cpu' in open('/proc/stat').read() else '')",
            held_by=Layer.LANDLOCK,
            says="PermissionError",
            note="no promise: time itself tells how busy a machine is",
        ),
    ]


CASES = _cases()
NOT_HERE = [
    NotHere("XSN-02", "files of one sandbox are found in another", "part of XSN-01"),
    NotHere("XSN-07", "a tool's result is served to another session", "results of tools are not kept by anybody"),
    NotHere(
        "TIM-02",
        "a shared library's cache lines tell what a neighbour does",
        "no promise: sandboxes on one machine share its processors' caches; the README says so",
    ),
]
