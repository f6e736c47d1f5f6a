"""Fills one Python prefix: interpreter, standard library, wheels, our own packages, byte code."""

from __future__ import annotations

import compileall
import fnmatch
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from executor_image.bootstrap.layout import (
    BUILD_ONLY,
    LINES_TO_REPLACE,
    STDLIB,
    TEST_EXTENSIONS,
    WHEEL_LEFTOVERS,
    Prefix,
)

_INSTALL_SECONDS = 300  # wheels are local; only the disk can be slow


def copy_interpreter(spec: Prefix, root: Path) -> None:
    """The running interpreter and its standard library. It finds its prefix by the place of its binary."""
    binary = root / spec.path / "bin" / "python3"
    binary.parent.mkdir(parents=True)
    shutil.copy2(os.path.realpath(sys.executable), binary)

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if _is_left_out(spec, name, Path(folder).name)]

    stdlib = sysconfig.get_path("stdlib")
    shutil.copytree(stdlib, root / spec.path / STDLIB, ignore=left_out, ignore_dangling_symlinks=True)


def _is_left_out(spec: Prefix, name: str, folder: str) -> bool:
    module = name.partition(".")[0] if folder == "lib-dynload" else name
    if folder == "lib-dynload" and module.startswith(TEST_EXTENSIONS):
        return True
    return module in spec.without or name.startswith("config-3.")


def install_wheels(spec: Prefix, root: Path, context: Path) -> None:
    """Exactly what the lock names, checked by hash once more, from the wheels in the context."""
    target = root / spec.path / spec.third_party
    (pip,) = (context / "wheels").glob("pip-*.whl")
    command = [sys.executable, f"{pip}/pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-index", "--find-links", str(context / "wheels"), "--require-hashes", "--no-deps", "--no-compile"]
    command += ["--no-cache-dir", "--root-user-action=ignore", "--target", str(target), "-r", str(context / spec.lock)]
    subprocess.run(command, check=True, timeout=_INSTALL_SECONDS)
    _remove_leftovers(target)
    _replace_lines(target)


def _remove_leftovers(target: Path) -> None:
    for folder, folders, files in os.walk(target):
        for name in [n for n in folders if _matches(n, WHEEL_LEFTOVERS)]:
            folders.remove(name)
            shutil.rmtree(Path(folder, name))
        for name in [n for n in files if _matches(n, WHEEL_LEFTOVERS)]:
            Path(folder, name).unlink()


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _replace_lines(target: Path) -> None:
    for name, old, new in LINES_TO_REPLACE:
        file = target / name
        if not file.parent.parent.is_dir():
            continue  # a package of the other prefix
        text = file.read_text("utf-8")
        if old not in text:
            raise SystemExit(f"{name} no longer has the line {old.strip()!r}; look at LINES_TO_REPLACE in layout.py")
        file.write_text(text.replace(old, new, 1), "utf-8")


def copy_packages(spec: Prefix, root: Path, context: Path) -> None:
    """Our own code, beside the standard library, so that it is on the path from the first moment."""
    for name in spec.packages:
        source, target = context / name, root / spec.path / STDLIB / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*BUILD_ONLY))
        else:
            shutil.copy2(source, target)


def compile_sources(spec: Prefix, root: Path) -> None:
    """Byte code that is used without a look at its source: its time stamp may change on the way into a layer."""
    compiled = compileall.compile_dir(
        root / spec.path,
        stripdir=str(root),
        prependdir="/",
        quiet=1,
        workers=os.cpu_count() or 1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not compiled:
        raise SystemExit(f"a source below /{spec.path} does not compile")
