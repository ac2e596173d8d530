"""Generate the Python messages, with their type stubs, from the .proto files beside this script.

    python proto/generate.py [DIRECTORY]

writes `services/wire/*_pb2.py` and `*_pb2.pyi` below DIRECTORY, the repository by default. The files are
committed; `tests/wire` holds that generating them again changes nothing. Services need no generated
code: `services.rpc` works from the descriptors in the messages' modules.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent


def generate(into: Path) -> None:
    """Write the generated modules below `into`. Raises SystemExit with protoc's status if it fails."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    status = protoc.main(["protoc", f"--proto_path={PROTO}", f"--python_out={into}", f"--pyi_out={into}", *sources])
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO.parent)
