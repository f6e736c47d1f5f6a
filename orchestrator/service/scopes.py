"""Which scope a token needs for which method. What is not in the table is refused."""

from __future__ import annotations

from collections.abc import Mapping

SANDBOXES, RUNS, ADMIN = "sandboxes", "runs", "admin"
SCOPES = frozenset({SANDBOXES, RUNS, ADMIN})

# Scopes of which one is needed, and the methods, by service. Each is named: a new one is a decision.
_TABLE: Mapping[str, tuple[tuple[frozenset[str], str], ...]] = {
    "orchestrator_api.v1.Sandboxes": (
        (frozenset({SANDBOXES}), "Create Close Reset Execute DropCheckpoint Fork WriteFile"),
        # Of a run's sandbox, whoever may have runs; which of both it takes, depends on whose it is (Held.scope).
        (
            frozenset({SANDBOXES, RUNS}),
            "List Get Isolation Interrupt Checkpoint ListCheckpoints Rollback ReadFile ListFiles",
        ),
    ),
    "orchestrator_api.v1.Runs": ((frozenset({RUNS}), "Start Get List Follow Interrupt Resume Decide"),),
    "orchestrator_api.v1.Tools": ((frozenset({SANDBOXES, RUNS}), "Serve"),),  # an app's functions are for either
    "orchestrator_api.v1.Service": (
        (SCOPES, "Status"),
        (frozenset({ADMIN}), "CreateToken ListTokens RevokeToken ConsoleLink"),
    ),
    # Off unless the settings turn it on; it tells what is in the .proto.
    "grpc.reflection.v1alpha.ServerReflection": ((SCOPES, "ServerReflectionInfo"),),
}
# Whether it serves is asked by what has no token: a load balancer, systemd, a container's health check.
OPEN = frozenset(f"/grpc.health.v1.Health/{method}" for method in ("Check", "List", "Watch"))
# Answered also while what a crash has left is looked for; other calls wait until that has been found.
AT_ONCE = frozenset({"/orchestrator_api.v1.Service/Status"})

NEEDS: Mapping[str, frozenset[str]] = {
    f"/{service}/{method}": scopes
    for service, rows in _TABLE.items()
    for scopes, methods in rows
    for method in methods.split()
}
"""Scopes of which a token has to have one, by the method's path."""
