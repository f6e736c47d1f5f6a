"""The shared libraries that the two prefixes need from the base, found by asking its dynamic linker."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

_LIST_SECONDS = 30
_PT_INTERP = 3
# glibc loads it by name when a thread ends, so no ELF header names it.
_LOADED_BY_NAME = "libgcc_s.so.1"


def copy_closure(root: Path) -> None:
    """Copies the dynamic linker and every library that lies outside the prefixes."""
    loader = _program_interpreter(Path(os.path.realpath(sys.executable)))
    _copy(Path(loader), root / loader.lstrip("/"))
    folder = _library_folder(loader)
    for name, source in sorted(_closure(root, loader).items()):
        if name != Path(loader).name:
            _copy(source, root / str(folder).lstrip("/") / name)


def _program_interpreter(binary: Path) -> str:
    """The path in the binary's PT_INTERP header (64-bit little-endian ELF, as on x86_64 and aarch64)."""
    image = binary.read_bytes()
    table, entry_size, count = struct.unpack_from("<Q", image, 32)[0], *struct.unpack_from("<HH", image, 54)
    for index in range(count):
        kind, _flags, offset, _vaddr, _paddr, size = struct.unpack_from("<IIQQQQ", image, table + index * entry_size)
        if kind == _PT_INTERP:
            return image[offset : offset + size].rstrip(b"\0").decode("ascii")
    raise SystemExit(f"{binary} is not dynamically linked")


def _library_folder(loader: str) -> Path:
    """Where the base keeps libc: one of the linker's built-in folders, so the image needs no ld.so.cache."""
    libc = _needed(loader, Path(os.path.realpath(sys.executable)))["libc.so.6"]
    folder = libc.parent
    return folder if str(folder).startswith("/usr/") else Path("/usr", str(folder).lstrip("/"))


def _closure(root: Path, loader: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(root.glob("opt/*/**/*")):
        if file.is_file() and _is_elf(file):
            found |= {name: path for name, path in _needed(loader, file).items() if not path.is_relative_to(root)}
    by_name = found["libc.so.6"].parent / _LOADED_BY_NAME
    return found | {_LOADED_BY_NAME: by_name}


def _is_elf(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _needed(loader: str, file: Path) -> dict[str, Path]:
    listing = subprocess.run(
        [loader, "--list", str(file)], capture_output=True, text=True, timeout=_LIST_SECONDS, check=False
    ).stdout
    missing = re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
    if missing:
        raise SystemExit(f"{file} needs {', '.join(missing)}, which the base image does not have")
    return {name: Path(path) for name, path in re.findall(r"^\s*(\S+) => (/\S+) \(", listing, re.MULTILINE)}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(os.path.realpath(source), target)
