"""``cellblock token create | list | revoke``: asks the service that runs here, by its socket."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.config import Config
from orchestrator.errors import ConfigError
from orchestrator.service.local import ask_service
from orchestrator.service.scopes import RUNS, SANDBOXES, SCOPES
from orchestrator.service.tables import date, print_table

_DAY = 86400


def add_command(commands: Any) -> None:
    """``token`` and its actions, among the commands of ``cellblock``."""
    actions = commands.add_parser("token", help="tokens for callers over TCP").add_subparsers(
        required=True, metavar="ACTION"
    )
    create = actions.add_parser("create", help="make one, and print it: it is shown this once")
    create.add_argument("name", help="of whoever will call with it; never used again")
    create.add_argument(
        "--scope",
        default=f"{SANDBOXES},{RUNS}",
        metavar="A,B",
        help=f"what it is for: {', '.join(sorted(SCOPES))} (default: %(default)s)",
    )
    create.add_argument("--sandboxes", type=int, metavar="N", help="at the same time")
    create.add_argument("--cpu-seconds", type=float, metavar="N", help="of executions, a day")
    create.add_argument("--run-minutes", type=float, metavar="N", help="of runs, a day")
    create.add_argument("--expires-days", type=float, metavar="N", help="after which it is good no more")
    create.set_defaults(command=_create)
    actions.add_parser("list", help="all of them, and what they have used today").set_defaults(command=_list)
    revoke = actions.add_parser("revoke", help="from now on it is good for nothing")
    revoke.add_argument("name")
    revoke.set_defaults(command=_revoke)


def _create(options: argparse.Namespace, config: Config) -> int:
    made = ask_service(config, "CreateToken", _order(options))
    print(made.token)
    if sys.stdout.isatty():
        print("It is not shown again.", file=sys.stderr)
    return 0


def _order(options: argparse.Namespace) -> pb.NewToken:
    quotas = {"sandboxes": options.sandboxes, "cpu_seconds": options.cpu_seconds, "run_minutes": options.run_minutes}
    try:
        order = pb.NewToken(
            name=options.name,
            scopes=[scope.strip() for scope in options.scope.split(",") if scope.strip()],
            quotas=pb.TokenQuotas(**quotas),
        )
    except ValueError as error:  # a negative number of sandboxes, a half of a surrogate pair
        raise ConfigError(f"there is no such token: {error}") from None
    if options.expires_days is not None:
        order.expires_after_seconds = options.expires_days * _DAY
    return order


def _list(options: argparse.Namespace, config: Config) -> int:
    found = ask_service(config, "ListTokens", pb.ListTokensRequest())
    heads = ("name", "scopes", "sandboxes", "cpu seconds today", "run minutes today", "created", "good")
    print_table(heads, map(_cells, found.tokens))
    return 0


def _cells(token: pb.TokenInfo) -> tuple[str, ...]:
    quotas = token.quotas
    return (
        token.name,
        ", ".join(token.scopes),
        f"at most {quotas.sandboxes}" if quotas.HasField("sandboxes") else "any number",
        f"{token.cpu_seconds_today:.0f}" + (f" of {quotas.cpu_seconds:g}" if quotas.HasField("cpu_seconds") else ""),
        f"{token.run_minutes_today:.0f}" + (f" of {quotas.run_minutes:g}" if quotas.HasField("run_minutes") else ""),
        date(token.created),
        _good(token),
    )


def _good(token: pb.TokenInfo) -> str:
    if token.revoked:
        return f"revoked {date(token.revoked)}"
    return f"until {date(token.expires)}" if token.expires else "yes"


def _revoke(options: argparse.Namespace, config: Config) -> int:
    ask_service(config, "RevokeToken", pb.TokenName(name=options.name))
    print(f"revoked {options.name}")
    return 0
