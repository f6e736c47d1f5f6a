"""``python proto/stubs.py write|check``: generates the stubs of the wire, or checks that those here are current."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

_PROTO = Path(__file__).resolve().parent
_SOURCE = "executor_api/v1/executor.proto"
_STUBS = ("executor_pb2.py", "executor_pb2.pyi", "executor_pb2_grpc.py")


def generate(target: Path) -> None:
    """Writes the stubs below ``target``."""
    well_known = Path(str(grpc_tools.__file__)).parent / "_proto"
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{_PROTO}", f"-I{well_known}", *outputs, _SOURCE]):  # type: ignore[no-untyped-call]
        raise SystemExit(f"protoc refuses {_SOURCE}")


def drifted() -> list[str]:
    """The stubs that differ from what the source gives now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        names = [str(Path(_SOURCE).with_name(name)) for name in _STUBS]
        return [name for name in names if _content(_PROTO / name) != _content(Path(folder) / name)]


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def main() -> None:
    """Runs the command that was given."""
    if sys.argv[1:] == ["write"]:
        generate(_PROTO)
    elif sys.argv[1:] == ["check"]:
        if names := drifted():
            raise SystemExit(f"{', '.join(names)}: not what {_SOURCE} gives; run `make proto`")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
