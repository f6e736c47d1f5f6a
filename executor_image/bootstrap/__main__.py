"""``python -m executor_image.bootstrap prefixes|code``: the two steps of the image build, each read top to bottom."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from executor_image.bootstrap import layout, libraries, packages, prefix, rootfs

_CONTEXT = Path("/build")
_ROOTFS = Path("/rootfs")  # interpreters, libraries, wheels
_CODE = Path("/code")  # our own packages, laid over it


def build_prefixes() -> None:
    """Two Python installations and the libraries below them; any failure ends the build."""
    rootfs.create_skeleton(_ROOTFS)
    for spec in layout.PREFIXES:
        prefix.copy_interpreter(spec, _ROOTFS)
        prefix.install_wheels(spec, _ROOTFS, _CONTEXT)
        prefix.compile_sources(spec, _ROOTFS)
    rootfs.move_time_zones(_ROOTFS)
    packages.write_map(_ROOTFS / layout.RUNNER.path / layout.RUNNER.third_party, _ROOTFS / layout.PACKAGE_MAP)
    libraries.copy_closure(_ROOTFS)
    rootfs.set_owners_and_modes(_ROOTFS)


def add_code() -> None:
    """Our packages in both; then each Python must import, locked into the new tree, what it promises."""
    for spec in layout.PREFIXES:
        prefix.copy_packages(spec, _CODE, _CONTEXT)
        prefix.compile_sources(spec, _CODE)
    rootfs.set_owners_and_modes(_CODE)
    shutil.copytree(_CODE, _ROOTFS, dirs_exist_ok=True)
    for spec in layout.PREFIXES:
        rootfs.check_imports(spec, _ROOTFS)


if __name__ == "__main__":
    {"prefixes": build_prefixes, "code": add_code}[sys.argv[1]]()
