"""What the image holds: two Python prefixes, and what each is made without."""

from __future__ import annotations

from dataclasses import dataclass

# Files of the supervisor's prefix are root:EXEC_GID and closed to others. The launcher gives this group to the
# supervisor alone, so the runner can neither read nor load gRPC, protobuf, ctypes or the supervisor's code.
EXEC_GID = 60001

STDLIB = "lib/python3.13"

# Of no use in a container: tools for developers, terminals and installers, CPython's own tests.
_NOWHERE = frozenset({
    "EXTERNALLY-MANAGED", "__hello__.py", "__phello__", "__pycache__", "antigravity.py", "curses", "dbm",
    "dist-packages", "ensurepip", "idlelib", "lib2to3", "pip", "pydoc_data", "readline", "rlcompleter.py",
    "site-packages", "sitecustomize.py", "test", "this.py", "tkinter", "turtle.py", "turtledemo", "venv",
    "_curses", "_curses_panel", "_dbm", "_gdbm", "_tkinter",
})  # fmt: skip

# Native code for the asking. Not a wall (seccomp and Landlock are), but a smaller kit inside it. `_posixsubprocess`
# stays: `subprocess` cannot be imported without it, and matplotlib imports that.
_NOT_FOR_USER_CODE = frozenset({
    "_ctypes", "_interpchannels", "_interpqueues", "_interpreters", "_multiprocessing", "_posixshmem", "ctypes",
})  # fmt: skip

# CPython's test modules, wherever it keeps them.
TEST_EXTENSIONS = ("_ctypes_test", "_test", "_xx", "xx")


@dataclass(frozen=True, slots=True)
class Prefix:
    """One Python installation in the image."""

    path: str  # in the image
    third_party: str  # where wheels go, below the prefix
    lock: str  # which wheels
    packages: tuple[str, ...]  # our own code, relative to the build context
    without: frozenset[str]  # names of modules and folders of the standard library that are left out
    gid: int  # 0: readable by everyone
    promises: tuple[str, ...]  # these import, or there is no image


SUPERVISOR = Prefix(
    path="opt/exec",
    third_party=STDLIB,
    lock="executor_image/requirements-supervisor.lock",
    packages=("executor_image", "executor_api"),
    without=_NOWHERE,
    gid=EXEC_GID,
    promises=("grpc.aio", "google.protobuf.message", "ctypes", "executor_image.launcher"),
)
RUNNER = Prefix(
    path="opt/py",
    # Not on the path by itself (-S): the runner adds it, as it grants the packages in it.
    third_party="site-packages",  # beside the standard library: what is granted is granted by name
    lock="executor_image/requirements-runner.lock",
    packages=("executor_image/__init__.py", "executor_image/frames.py", "executor_image/runner"),
    without=_NOWHERE | _NOT_FOR_USER_CODE,
    gid=0,
    promises=("numpy", "pandas", "matplotlib.pyplot", "executor_image.runner"),
)
PREFIXES = (SUPERVISOR, RUNNER)

# What each third-party package of the runner's needs to be readable; the launcher reads it (launcher/visible.py).
PACKAGE_MAP = "opt/exec/packages.json"

# Files of executor_image/ that make the image and are no part of it.
BUILD_ONLY = ("bootstrap", "Dockerfile", "requirements-*", "__pycache__")

# Parts of wheels that running code never needs: tests (100 MB of them), stubs, headers, commands.
WHEEL_LEFTOVERS = ("tests", "*.pyi", "*.a", "*.h", "bin", "sample_data")

# pandas imports ctypes at its start for functions that need it on Windows or in the interchange protocol only. With
# this line gone those functions fail when called, and `import pandas` works without ctypes.
LINES_TO_REPLACE = (
    ("pandas/errors/__init__.py", "\nimport ctypes\n", "\nctypes = None\n"),
    ("pandas/core/interchange/from_dataframe.py", "\nimport ctypes\n", "\nctypes = None\n"),
)
