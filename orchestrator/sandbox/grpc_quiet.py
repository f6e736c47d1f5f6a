"""gRPC, which says nothing on standard error.

Its core writes there what a peer gives as the reason of its end, escape sequences included: a container would speak to
the operator's terminal. It reads this variable once, when it is loaded; a program that wants the log sets it itself.
"""

import os

_VERBOSITY = "GRPC_VERBOSITY"
_is_set = _VERBOSITY in os.environ
os.environ.setdefault(_VERBOSITY, "NONE")
import grpc  # noqa: E402

if not _is_set:  # programs that this one starts are none of its business
    del os.environ[_VERBOSITY]

__all__ = ["grpc"]
