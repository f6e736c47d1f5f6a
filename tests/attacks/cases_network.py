"""Section 3.5: network egress.

Payloads run in containers without a network. Controls are processes of the host that talk to listeners of the test's
own on 127.0.0.1. No AF_VSOCK socket is ever connected. The listeners count: a case fails if one of them is reached.
"""

from __future__ import annotations

from tests.attacks.case import Case, Control, Layer, Place, case, no_control
from tests.attacks.native import SYSCALL
from tests.attacks.target import Attack
from tests.endings import OK

ON_HOST = Control(Place.HOST)
REFUSED = "Errno|gaierror|PermissionError|ConnectionRefused"
FAMILIES = {  # name: (family, type, protocol), as in the kernel's socket.h
    "AF_INET": (2, 1, 0),
    "AF_INET6": (10, 1, 0),
    "AF_PACKET": (17, 3, 0),
    "AF_NETLINK": (16, 3, 0),
    "AF_ALG": (38, 5, 0),
    "AF_BLUETOOTH": (31, 5, 0),
    "AF_KEY": (15, 3, 2),
    "AF_XDP": (44, 3, 0),
    "AF_VSOCK": (40, 1, 0),
    "SCTP": (2, 1, 132),
    "MPTCP": (2, 1, 262),
    "raw IP": (2, 3, 1),
}
LIBC = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
"""
NOT_ON_THIS_KERNEL = "EAFNOSUPPORT|EPROTONOSUPPORT|ESOCKTNOSUPPORT"


def nobody_was_reached(attack: Attack) -> None:
    """The listeners on the host have had no connection and no datagram."""
    assert attack.target.listeners.reached() == []


def _connects() -> list[Case]:
    connect = "import socket\nsocket.create_connection(({host}, {PORT}), timeout=2).close()\n{R}"
    interfaces = (
        "import socket\nnames = [name for _, name in socket.if_nameindex()]\nprint({R} if names != ['lo'] else names)"
    )
    routes = "print({R} if open('/proc/net/route').read().count('\\n') > 1 else 'no route')"
    no_resolver = no_control("it would ask a resolver, and tests send nothing to anybody but themselves")
    return [
        case(
            "NET-01",
            "a connection to a listener on the host",
            connect.replace("{host}", "'127.0.0.1'"),
            held_by=Layer.CONTAINER,
            denied=True,
            says=REFUSED,
            control=ON_HOST,
            check=nobody_was_reached,
        ),
        case(
            "NET-01b",
            "a connection by asyncio to a listener on the host",
            "import asyncio\nawait asyncio.open_connection('127.0.0.1', {PORT})\n{R}",
            held_by=Layer.CONTAINER,
            denied=True,
            says=REFUSED,
            control=Control(
                Place.HOST,
                steps=(
                    "import asyncio\nasync def f():\n    await asyncio.open_connection('127.0.0.1', {PORT})\n"
                    "    print({R})\nasyncio.run(f())",
                ),
                reason="there an await needs a function around it",
            ),
            check=nobody_was_reached,
        ),
        case(
            "NET-02",
            "an interface besides lo is seen",
            interfaces,
            held_by=Layer.CONTAINER,
            denied=True,
            says="lo|Error",
            control=ON_HOST,
        ),
        case(
            "NET-02b",
            "a route is seen",
            routes,
            held_by=Layer.CONTAINER,
            says="no route|PermissionError",
            control=ON_HOST,
        ),
        case(
            "NET-04",
            "a name is resolved",
            "import socket\nsocket.gethostbyname('canary.test')\n{R}",
            held_by=Layer.CONTAINER,
            denied=True,
            says=REFUSED,
            control=no_resolver,
        ),
        case(
            "NET-04b",
            "a datagram to a listener on the host",
            "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {UDP}))\n{R}",
            # Where datagram sockets can be had the sending itself succeeds, on the container's own lo: to nobody.
            held_by=Layer.CONTAINER,
            denied=True,
            says=REFUSED,
            control=ON_HOST,
            check=nobody_was_reached,
        ),
        *(
            case(
                f"NET-05{letter}",
                f"a connection over IPv6 to {host}",
                connect.replace("{host}", repr(host)),
                held_by=Layer.CONTAINER,
                denied=True,
                says=REFUSED,
                control=ON_HOST
                if "ffff" in host
                else no_control("tests of the host keep to 127.0.0.1; NET-05c's control shows that the family works"),
                check=nobody_was_reached,
            )
            for letter, host in (("", "::1"), ("b", "fe80::1%lo"), ("c", "::ffff:127.0.0.1"))
        ),
        case(
            "NET-11",
            "a connection to an abstract socket of the host",
            "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0{ABSTRACT}')\n{R}",
            held_by=Layer.CONTAINER,
            denied=True,
            says=REFUSED,
            control=ON_HOST,
            check=nobody_was_reached,
        ),
        case(
            "NET-11c",
            "one of a pair of datagram sockets sends to a socket of the host",
            "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "a.sendto(b'x', '\\0{ABSTRACT}-datagrams')\n{R}",
            held_by=Layer.CONTAINER,
            denied=True,
            says=REFUSED,
            control=ON_HOST,
            check=nobody_was_reached,
        ),
        case(
            "NET-11b",
            "a connection to the supervisor's own socket",
            "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('/run/s/executor.sock')\n{R}",
            held_by=Layer.USERS,
            denied=True,
            says="PermissionError|Errno",
            control=no_control("the socket is there in a sandbox alone; the host itself connects to it in each test"),
        ),
        case(
            "NET-13",
            "an address in a final answer is fetched",
            "final_answer('![x](http://127.0.0.1:{PORT}/x) <img src=\"http://127.0.0.1:{PORT}/y\">')",
            held_by=Layer.HOST,
            endings=(OK,),
            check=answer_is_inert,
            control=no_control("there is nothing here that fetches; the listener's count is what shows it"),
        ),
        case(
            "NET-14",
            "a page from a server on the host, and not a hang",
            "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{PORT}/', timeout=0.5).read()\n{R}",
            held_by=Layer.CONTAINER,
            denied=True,
            says=REFUSED,
            control=Control(Place.HOST, shows="timed out", reason="there the listener is reached, and does not answer"),
            check=nobody_was_reached,
        ),
    ]


def answer_is_inert(attack: Attack) -> None:
    """It is text, as the code wrote it, and nobody has looked there."""
    assert attack.last.final_answer is not None
    assert "127.0.0.1" in attack.last.final_answer.value
    nobody_was_reached(attack)


def _families() -> list[Case]:
    """Sockets of every family but AF_UNIX: not even made."""
    ids = {"AF_VSOCK": "NET-07", "AF_ALG": "NET-08", "AF_NETLINK": "NET-08b", "AF_BLUETOOTH": "NET-08c"}
    ids |= {"AF_KEY": "NET-08d", "AF_XDP": "NET-08e", "SCTP": "NET-08f", "MPTCP": "NET-08g", "AF_PACKET": "NET-08h"}
    ids |= {"AF_INET": "NET-08i", "AF_INET6": "NET-08j", "raw IP": "NET-08k"}
    make = "fd = libc.socket({0}, {1}, {2})\nprint({R} if fd >= 0 else errno.errorcode[ctypes.get_errno()])"
    return [
        case(
            ids[name],
            f"a socket of {name}, made by native code",
            LIBC + make.replace("{0}", str(family)).replace("{1}", str(type_)).replace("{2}", str(protocol)),
            held_by=Layer.CONTAINER,
            native=True,
            denied=True,
            says="EAFNOSUPPORT|EACCES|EPERM|signal 31",
            control=Control(absent=NOT_ON_THIS_KERNEL),
        )
        for name, (family, type_, protocol) in FAMILIES.items()
    ]


def _uring() -> Case:
    # io_uring has operations that make and connect sockets, past every rule on socket(2).
    return case(
        "NET-10",
        "a ring whose operations could connect",
        SYSCALL + "tell(call(425, 8, (ctypes.c_uint8 * 120)()))",
        held_by=Layer.CONTAINER,
        native=True,
        denied=True,
        says="EPERM|ENOSYS|signal 31",
        control=Control(absent="ENOSYS"),
    )


CASES = [*_connects(), *_families(), _uring()]
