"""For tests whose code must not run in the test process itself: in a child, with few rights, within a deadline."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DEADLINE = 30.0
_PASSED = b"passed"
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_USER, _NEW_PID, _NEW_MOUNTS = 0x10000000, 0x20000000, 0x20000  # see unshare(2)
_DIE_WITH_PARENT = 1  # see prctl(2)
_RECURSIVE, _PRIVATE = 0x4000, 0x40000  # see mount(2)
# Root may read and write whatever its mode says; the runner may not.
ORDINARY = 65534 if os.getuid() == 0 else os.getuid()
# A child inherits what other tests have left as garbage. To finalise it there can hang: gRPC's wants threads that the
# child has not.
os.register_at_fork(after_in_child=gc.freeze)


def apart(test: Callable[..., None]) -> Callable[..., None]:
    """The test runs in a forked child of an ordinary user's; what it raises there is raised here, as text."""
    return _run_in_child(test, _become_ordinary)


def in_own_namespace(test: Callable[..., None]) -> Callable[..., None]:
    """The test runs as process 1 of a pid namespace of its own: it sees, and can signal, only what it has made.

    It may also mount. A machine that forbids such namespaces fails the test.
    """
    return _run_in_child(test, _enter_namespace)


def where_processes_are_hidden(test: Callable[..., None]) -> Callable[..., None]:
    """The test runs in a forked child of an ordinary user's whose /proc shows its own processes alone. Needs root."""
    return _run_in_child(test, _hide_processes)


def _run_in_child(test: Callable[..., None], prepare: Callable[[], None]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            # What other tests have freed is given back: a child that used it again would hold it beside its parent.
            _LIBC.malloc_trim(0)
            _end_with(write, prepare, lambda: test(*args, **kwargs))
        os.close(write)
        said = _read_all(read, child)
        status = os.waitpid(child, 0)[1]
        assert said == _PASSED, f"in the child (wait status {status}):\n{said.decode('utf-8', 'replace')}"

    return run


def _end_with(pipe: int, prepare: Callable[[], None], call: Callable[[], None]) -> None:
    status, write, end = 1, os.write, os._exit  # what the test breaks here must not keep it from being told
    try:
        prepare()
        call()
        write(pipe, _PASSED)  # a test that ends its process has not passed
        status = 0
    except BaseException:  # noqa: BLE001 - told to the parent
        write(pipe, traceback.format_exc()[-60_000:].encode("utf-8", "backslashreplace"))
    finally:
        end(status)


def _become_ordinary() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(ORDINARY, ORDINARY, ORDINARY)
        os.setresuid(ORDINARY, ORDINARY, ORDINARY)


def _enter_namespace() -> None:
    user, group = os.getuid(), os.getgid()
    _call("unshare", _NEW_USER | _NEW_PID | _NEW_MOUNTS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    first = os.fork()
    if first:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0x7F)
    _call("prctl", _DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    mount(None, "/", None, None, _RECURSIVE | _PRIVATE)
    mount("proc", "/proc", "proc")


def _hide_processes() -> None:
    _call("unshare", _NEW_MOUNTS)
    mount(None, "/", None, None, _RECURSIVE | _PRIVATE)
    mount("proc", "/proc", "proc", "hidepid=2")
    _become_ordinary()


def mount(source: str | None, target: str, kind: str | None, options: str | None = None, flags: int = 0) -> None:
    """See mount(2)."""
    texts = [text and text.encode() for text in (source, target, kind)]
    _call("mount", *texts, ctypes.c_ulong(flags), options and options.encode())


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _read_all(pipe: int, child: int) -> bytes:
    deadline, said = time.monotonic() + DEADLINE, b""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    with os.fdopen(pipe, "rb", buffering=0) as file:
        while poll.poll(max(0, deadline - time.monotonic()) * 1000):
            if not (data := file.read(1 << 16)):
                return said
            said += data
    os.kill(child, signal.SIGKILL)
    return said + b"it did not end in time"


@contextmanager
def ordinary_folder() -> Iterator[Path]:
    """A folder of the ordinary user's, in which nothing is left that could not be removed."""
    folder = Path(tempfile.mkdtemp(prefix="cellblock-test-")).resolve()
    os.chown(folder, ORDINARY, -1)
    try:
        yield folder
    finally:
        for found, _, _ in os.walk(folder):  # from the top: each is opened before it is entered
            with suppress(OSError):
                os.chmod(found, 0o700)
        shutil.rmtree(folder)


def wait_until(true: Callable[[], object], what: str) -> None:
    """Waits for something that no descriptor tells of."""
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        os.sched_yield()
