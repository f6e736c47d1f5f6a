"""``python proto/stubs.py write|check``: generates the stubs of the wires, or checks that those here are current."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

_PROTO = Path(__file__).resolve().parent
_SOURCES = ("executor_api/v1/executor.proto", "orchestrator_api/v1/orchestrator.proto")
_ENDINGS = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def generate(target: Path) -> None:
    """Writes the stubs below ``target``."""
    well_known = Path(str(grpc_tools.__file__)).parent / "_proto"
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{_PROTO}", f"-I{well_known}", *outputs, *_SOURCES]):  # type: ignore[no-untyped-call]
        raise SystemExit(f"protoc refuses one of {', '.join(_SOURCES)}")


def drifted() -> list[str]:
    """The stubs that differ from what the source gives now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        names = [source.removesuffix(".proto") + ending for source in _SOURCES for ending in _ENDINGS]
        return [name for name in names if _content(_PROTO / name) != _content(Path(folder) / name)]


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def main() -> None:
    """Runs the command that was given."""
    if sys.argv[1:] == ["write"]:
        generate(_PROTO)
    elif sys.argv[1:] == ["check"]:
        if names := drifted():
            raise SystemExit(f"{', '.join(names)}: not what the .proto beside them gives; run `make proto`")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
