"""What the image's sources promise before anything is built."""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from executor_image.bootstrap import layout

IMAGE = Path(layout.__file__).parents[1]
EXECUTOR, RUNNER = layout.PREFIXES


def imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def sources_of(prefix: layout.Prefix) -> list[Path]:
    entries = [IMAGE.parent / name for name in prefix.packages]
    return [file for entry in entries for file in ([entry] if entry.is_file() else sorted(entry.rglob("*.py")))]


@pytest.mark.parametrize("file", sources_of(RUNNER), ids=lambda file: str(file.relative_to(IMAGE)))
def test_the_runner_imports_only_what_its_prefix_has(file: Path) -> None:
    tree = ast.parse(file.read_text("utf-8"))
    has = (set(sys.stdlib_module_names) | {"executor_image"}) - RUNNER.without
    assert {name.partition(".")[0] for name in imports(tree.body)} <= has
    # Inside a function a package may be imported that user code is using already.
    promised = {name.partition(".")[0] for name in RUNNER.promises}
    everything = set(imports(ast.walk(tree)))
    assert {name.partition(".")[0] for name in everything} <= has | promised
    ours = {name for name in everything if name.startswith("executor_image.")}
    assert all(name.startswith(("executor_image.frames", "executor_image.runner")) for name in ours)


def test_the_runner_has_less_than_the_supervisor() -> None:
    assert EXECUTOR.without < RUNNER.without
    assert {"ctypes", "_ctypes", "_multiprocessing", "readline"} <= RUNNER.without
    assert EXECUTOR.gid == layout.EXEC_GID
    assert RUNNER.gid == 0


def test_what_the_image_installs_equals_what_the_host_generates_with() -> None:
    supervisor = (IMAGE / "requirements-supervisor.lock").read_text()
    host = (IMAGE.parent / "requirements-dev.lock").read_text()
    for package in ("grpcio", "protobuf"):
        (version,) = [
            line.split("==")[1].split()[0] for line in supervisor.splitlines() if line.startswith(f"{package}==")
        ]
        assert f"\n{package}=={version}\n" in host
