"""Who may say and hear what, as an access list for Mosquitto (mosquitto.conf(5), `acl_file`). Pure.

It follows from `wire.asyncapi.CHANNELS`, so that a topic of the contract cannot be forgotten here.
"""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wire.asyncapi import CHANNELS, Channel, Role, address
from wire.names import is_id
from wire.topics import Topics


@dataclass(frozen=True, slots=True)
class Account:
    """One user of the MQTT server.

    Attributes:
        user: its name there; None stands for everybody who gives no name, as boards do by default.
        roles: what it is; a broker with a page, for instance, is an operator too, because its page asks for people.
        names: of an agent, its own name (exactly one); of a board, its own (none: any board's).
        boards: of an agent, those that are its; an agent that is a board as well (it runs steps on consoles) is each of
            these.
        looks_only: it hears what its role hears and says nothing.
    """

    user: str | None
    roles: tuple[Role, ...]
    names: Sequence[str] = ()
    boards: Sequence[str] = ()
    looks_only: bool = False


_ALSO_HEARS = {
    # An agent's own state may hold the will of its last session, or another agent of the same name.
    Role.AGENT: (Topics.agent_state,),
    # What the predecessor of this broker left there.
    Role.BROKER: (Topics.lease, Topics.broker_state),
}


def acl(accounts: Iterable[Account], prefix: str = "boardhand") -> str:
    """The file's text. Whoever is not in it may say and hear nothing.

    Raises:
        ValueError: a user's name that would break the file, or an agent without a name.
    """
    ordered = sorted(
        accounts,
        key=lambda account: (account.user is not None, [role.value for role in account.roles], account.user or ""),
    )
    return "\n".join(_section(account, prefix) for account in ordered)


def _section(account: Account, prefix: str) -> str:
    if account.user is not None and (not account.user or account.user != account.user.strip() or "\n" in account.user):
        raise ValueError(f"{account.user!r} is no user name for an access list")
    if Role.AGENT in account.roles and len(account.names) != 1:
        raise ValueError(f"agent account {account.user}: exactly one agent's name is needed")
    if wrong := [name for name in (*account.names, *account.boards) if not is_id(name)]:
        raise ValueError(f"{wrong[0]!r} is not an id: use a-z, 0-9 and '-', at most 63 characters")
    what = " and ".join(role.value for role in account.roles)
    whom = f"{what} without a user name" if account.user is None else what
    lines = [f"# {whom}{', looks only' if account.looks_only else ''}"]
    if account.user is not None:
        lines.append(f"user {account.user}")
    rights: dict[str, set[str]] = {}
    for role in account.roles:
        for channel in CHANNELS:
            says = role in channel.senders and not account.looks_only
            hears = role in channel.receivers or channel.topic in _ALSO_HEARS.get(role, ())
            for pattern in _patterns(channel, account, role, prefix):
                rights.setdefault(pattern, set()).update(["write"] * says, ["read"] * hears)
    for pattern, found in sorted(rights.items()):
        if found:
            lines.append(f"topic {'readwrite' if len(found) > 1 else next(iter(found))} {pattern}")
    return "\n".join(lines) + "\n"


def _patterns(channel: Channel, account: Account, role: Role, prefix: str) -> list[str]:
    """The channel's topics as this account knows them in a role: its own names in place, `+` for those of others."""
    own: dict[str, Sequence[str]] = {}
    if Role.AGENT in account.roles and role in (Role.AGENT, Role.BOARD):
        own = {"agent": account.names, "board": account.boards}
    elif role is Role.BOARD and account.names:
        own = {"board": account.names}
    patterns = [address(channel.topic)]
    for name in inspect.signature(channel.topic).parameters:
        if name != "self":
            values = own.get(name, ("+",))
            patterns = [p.replace(f"{{{name}}}", value) for p in patterns for value in values]
    return [p.replace("{prefix}", prefix) for p in patterns]
