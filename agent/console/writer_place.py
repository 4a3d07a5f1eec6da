"""Who may type on a console: many read, one writes. No I/O and no clock.

The first who types has the place. It is free again when its holder leaves, gives it up, or has typed nothing for
`idle_s`; anybody may take it, which its holder is told, unless the holder keeps it: a dialogue of the agent's own that
somebody else's keys would spoil. Where leases bind writers, only who shows the token of the lease that holds types at
all.
"""

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Writer:
    """One who may want to type: a connection, or a part of the agent."""

    name: str
    token: int | None = None
    """Of the lease that it shows."""
    keeps: bool = False
    """Nobody takes the place from it; it gives it up when it is done."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A lease that holds the board now."""

    holder: str
    token: int


@dataclass(slots=True)
class WriterPlace:
    """The place of one console."""

    idle_s: float
    holder: Writer | None = None
    since: float = 0.0
    last_typed: float = field(default=0.0)

    def type(self, who: Writer, now: float, lease: Binding | None = None) -> str | None:
        """`who` types at `now`. Returns None where it may, else why not, as a clause for people."""
        if lease is not None and who.token != lease.token:
            return f"the board is leased by {lease.holder}"
        other = self.holder if self.holder is not who else None
        if other is not None and (other.keeps or now - self.last_typed < self.idle_s):
            return f"{other.name} is typing"
        if self.holder is not who:
            self.holder, self.since = who, now
        self.last_typed = now
        return None

    def is_used(self, now: float) -> bool:
        """Whether somebody types, or has typed a short while ago."""
        return self.holder is not None and (self.holder.keeps or now - self.last_typed < self.idle_s)

    def take(self, who: Writer, now: float, lease: Binding | None = None) -> str | None:
        """`who` takes the place from whoever has it. Returns None where it may, else why not."""
        if lease is not None and who.token != lease.token:
            return f"the board is leased by {lease.holder}"
        if self.holder is not None and self.holder is not who and self.holder.keeps:
            return f"{self.holder.name} keeps the console until it is done"
        if self.holder is not who:
            self.holder, self.since = who, now
        self.last_typed = now
        return None

    def leave(self, who: Writer) -> bool:
        """`who` is gone or gives the place up; whether it had it."""
        if self.holder is not who:
            return False
        self.holder = None
        return True
