"""Section 3.10, first part: the supervisor as another process, to be killed, traced, read, written to, slowed down."""

from __future__ import annotations

from tests.attacks.case import Case, Layer, case, no_control
from tests.attacks.native import SYSCALL
from tests.attacks.preludes import OS
from tests.endings import DIED, DIED_LOST, ERROR, OK, OK_LOST


def _supervisor() -> list[Case]:
    permitted = "{R}"
    kill_all = "os.kill(-1, 9)\n"
    return [
        case(
            "TKO-01",
            "the supervisor is killed",
            f"{OS}os.kill(1, 9)\n{permitted}",
            held_by=Layer.USERS,
            endings=(ERROR,),
            says="PermissionError|ProcessLookupError",
        ),
        case(
            "TKO-01b",
            "the supervisor is asked to end",
            f"{OS}os.kill(1, 15)\n{permitted}",
            held_by=Layer.USERS,
            endings=(ERROR,),
            says="PermissionError|ProcessLookupError",
        ),
        case(
            "TKO-01c",
            "the supervisor is killed with all others",
            f"{OS}{kill_all}1",
            "1 + 1",
            held_by=Layer.USERS,
            endings=(OK, OK_LOST, DIED_LOST),
            may_spoil=True,
            control=no_control(
                "it would kill the control's own processes; TKO-01's shows that the first can be reached"
            ),
            note="its own checkpoints and its warden are of its own user: it can kill them, and is told what is lost",
        ),
        case(
            "TKO-01d",
            "the supervisor is killed by native code",
            f"{SYSCALL}tell(call(62, 1, 9))",
            held_by=Layer.USERS,
            native=True,
            denied=True,
            says="EPERM|ESRCH",
        ),
        case(
            "TKO-02",
            "the supervisor is traced",
            f"{SYSCALL}print(got := call(101, 16, 1, 0, 0), {{R}} if got == 0 else '')",
            held_by=Layer.USERS,
            native=True,
            denied=True,
            endings=(OK, DIED),
            says="EPERM|ESRCH|signal 31",
            control=no_control("the control's first process would be stopped; KRN-07's shows that the call is there"),
        ),
        case(
            "TKO-02b",
            "the supervisor's memory is written by a system call",
            SYSCALL + "part = (ctypes.c_uint64 * 2)(0, 0)\ntell(call(311, 1, part, 1, part, 1, 0))",
            held_by=Layer.USERS,
            native=True,
            denied=True,
            endings=(OK, DIED),
            says="EPERM|ENOSYS|ESRCH|signal 31",
        ),
        case(
            "TKO-02c",
            "the supervisor's memory is opened",
            "open('/proc/1/mem', 'r+b').close()\n{R}",
            held_by=Layer.USERS,
            says="PermissionError",
        ),
        case(
            "TKO-02f",
            "the supervisor's memory is opened by native code",
            f"{SYSCALL}got = call(2, b'/proc/1/mem', 2)\nprint(got, {{R}} if isinstance(got, int) else '')",
            held_by=Layer.USERS,
            native=True,
            denied=True,
            says="EACCES|EPERM",
        ),
        case(
            "TKO-02d",
            "the supervisor's limits are changed",
            "import resource\nresource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3))\n{R}",
            held_by=Layer.USERS,
            denied=True,
            says="PermissionError|ProcessLookupError",
            control=no_control("the control's own first process would be harmed"),
        ),
        case(
            "TKO-02e",
            "the supervisor is moved to another processor",
            f"{OS}os.sched_setaffinity(1, {{0}})\n{{R}}",
            held_by=Layer.USERS,
            says="PermissionError|ProcessLookupError",
        ),
    ]


CASES = _supervisor()
