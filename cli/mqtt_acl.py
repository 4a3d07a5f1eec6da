"""`boardhand mqtt-acl`: who may say what, from the settings of all daemons of a farm."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.exits import CliError, Exit, usage
from wire.asyncapi import Role
from wire.mqtt_acl import Account, acl


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for."""

    files: Sequence[Path]
    operators: Sequence[str]
    looks_only: Sequence[str]
    nameless_boards: bool


def run(wanted: Wanted, *, as_json: bool) -> int:
    """Print the access list.

    Raises:
        CliError: a file cannot be used, a daemon gives no user name, two use one, or the farm has two prefixes.
    """
    accounts: dict[str | None, Account] = {}
    prefixes: dict[str, Path] = {}
    for file in wanted.files:
        for account, prefix in _accounts(file, nameless_boards=wanted.nameless_boards):
            prefixes.setdefault(prefix, file)
            if (known := accounts.get(account.user)) is not None:
                account = _one(known, account, file)  # noqa: PLW2901  # one line a user
            accounts[account.user] = account
    if len(prefixes) > 1:
        (first, a), (second, b) = list(prefixes.items())[:2]
        raise usage(f"{a} has the prefix {first}, {b} has {second}", "an access list is for one farm; give its files")
    for user, looks_only in [*((u, False) for u in wanted.operators), *((u, True) for u in wanted.looks_only)]:
        if user in accounts:
            raise usage(f"{user} is a daemon's user already", "give people users of their own")
        accounts[user] = Account(user, (Role.OPERATOR,), looks_only=looks_only)
    if wanted.nameless_boards:
        accounts[None] = Account(None, (Role.BOARD,))
    try:
        text = acl(accounts.values(), next(iter(prefixes), "boardhand"))
    except ValueError as error:
        raise usage(str(error)) from None
    users = [_described(account) for account in accounts.values()]
    print(json.dumps({"acl": text, "users": users}) if as_json else text.rstrip())
    return Exit.OK


def _accounts(file: Path, *, nameless_boards: bool) -> Iterator[tuple[Account, str]]:
    """The users of one file. It may be of another host: what it names need not be here, and `check` looks at it."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CliError(Exit.USAGE, f"{file}: {error}") from None
    mqtt, agent, boards = (_table(tables, name, file) for name in ("mqtt", "agent", "boards"))
    prefix, user = str(mqtt.get("prefix", "boardhand")), mqtt.get("username")
    if not isinstance(user, str):
        raise usage(f"{file}: its daemon gives no user name", "set username and password_file in [mqtt]")
    if "broker" in tables or "agent" not in tables:
        # The page asks the broker, and agents, as people do.
        roles = (Role.BROKER,) if "web" not in tables else (Role.BROKER, Role.OPERATOR)
        yield Account(user, roles), prefix
    if "agent" in tables:
        # Where it runs the steps of jobs on consoles, it speaks for those boards.
        stands_in = any(isinstance(board, dict) and board.get("client") == "console" for board in boards.values())
        parts: tuple[Role, ...] = (Role.AGENT, Role.BOARD) if stands_in else (Role.AGENT,)
        yield Account(user, parts, names=(str(agent.get("name")),), boards=tuple(boards)), prefix
        if not nameless_boards:
            for board in boards:
                yield Account(board, (Role.BOARD,), names=(board,)), prefix


def _table(tables: dict[str, object], name: str, file: Path) -> dict[str, object]:
    found = tables.get(name, {})
    if not isinstance(found, dict):
        raise usage(f"{file}: {name} is no table", "see 'boardhand check'")
    return found


def _one(known: Account, more: Account, file: Path) -> Account:
    """One user for two: broker and agent in one file. Two agents would each speak for the other's boards."""
    if known == more:
        return known
    if known.names and more.names:
        raise usage(
            f"{file}: user {more.user} is that of {', '.join(known.names)} as well", "give each a user of its own"
        )
    roles = tuple(dict.fromkeys((*known.roles, *more.roles)))
    return Account(known.user, roles, names=known.names or more.names, boards=known.boards or more.boards)


def _described(account: Account) -> dict[str, object]:
    roles = [role.value for role in account.roles]
    return {"user": account.user, "roles": roles, "boards": list(account.boards), "looks_only": account.looks_only}
