"""Whose board it is, in words. Pure."""

from datetime import datetime

from broker.web.access import Person, Role
from wire.payloads import Lease


def held_by_another(board: str, who: Person, lease: Lease | None, now: datetime) -> str | None:
    """Why `who` may not have the board now: somebody else holds it, until when. None where nobody else does."""
    if lease is None or lease.expires <= now or lease.holder == who.name:
        return None
    until = f"{(lease.ends or lease.expires).astimezone():%Y-%m-%d %H:%M %Z}"
    return f"board {board}: held by {lease.holder} until {until}; wait, or ask for it"


def may_not_type(board: str, who: Person, lease: Lease | None, now: datetime) -> str | None:
    """Why `who` may not type on the board's console. Users may where they hold the board, or nobody does."""
    if not who.role.covers(Role.USER):
        return f"{who.name} is {who.role.value}; typing is for users"
    return held_by_another(board, who, lease, now)
