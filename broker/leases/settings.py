"""`[broker.leases]`: what people may reserve."""

from pydantic import BaseModel, ConfigDict, Field

from broker.leases.lease import LeaseRules

DAY_S = 86400


class LeasesTable(BaseModel):
    """`[broker.leases]`. Seconds where a name ends in `_s`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    longest_s: float = Field(default=30 * DAY_S, ge=60, le=366 * DAY_S)
    """Nobody reserves a board for longer; a lease may be extended by so much again and again."""
    warn_s: float = Field(default=600, ge=0, le=DAY_S)
    """So long before its end a lease says `ending` on `lease/<lease>/state`; short ones in their last quarter."""
    off_when_done: bool = False
    """A board that is given back is switched off, where its person did not say otherwise."""
    most_waiting: int = Field(default=10_000, ge=1, le=1_000_000)
    """More people may not queue."""

    def rules(self) -> LeaseRules:
        """The rules for the scheduler."""
        return LeaseRules(self.longest_s, self.warn_s, self.off_when_done, self.most_waiting)
