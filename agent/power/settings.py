"""Settings that all controllers share, and those of feeds. Secrets are never among them: a setting names the file or
the environment variable that holds one. What one kind of controller has of its own stands in `agent/power/kinds`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from agent.power.feed import FeedKind, OutletRef
from wire.names import Id

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
TimeoutS = Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)]
NonEmpty = Annotated[str, Field(min_length=1, max_length=4096)]


class PowerSettings(BaseModel):
    """Base of all tables about power: a key that nobody knows is an error, because it is a typo."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ControllerBase(PowerSettings):
    """What every `[controllers.NAME]` has. A kind's own settings derive from this and narrow `driver`."""

    driver: str
    description: Annotated[str, Field(max_length=256)] = ""
    """For people: what it is and where it stands."""
    inrush_spacing_s: Seconds = 0.0
    """Least time between two switch-ons of this controller, so that a shelf does not blow its fuse."""
    circuit: Id | None = None
    """The fuse that it hangs on, `[circuits.NAME]`."""
    shared_outlets: list[NonEmpty] = []
    """Outlets that feed several boards, and are meant to: any other may feed one board only."""
    keep_outlets: list[NonEmpty] = []
    """Outlets that `boardhand learn` never touches: what hangs on them is no board, as a network switch."""


class CircuitSettings(PowerSettings):
    """One fuse, and what hangs on it."""

    inrush_spacing_s: Seconds
    """Least time between two switch-ons of all controllers of this circuit."""


class BoardFeed(PowerSettings):
    """What powers one board: outlets in the order in which they are switched on; off goes the other way round."""

    outlets: Annotated[list[str], Field(min_length=1, max_length=16)]
    """Each `controller:outlet`."""
    min_off_s: Seconds | None = None
    verify_deadline_s: TimeoutS | None = None
    attempts: Annotated[int, Field(ge=1, le=20)] | None = None
    kind: FeedKind = FeedKind.UNSAID
    settle_after_s: dict[str, Seconds] = {}
    """Outlet -> rest after it has switched, before the next one of the feed is touched."""
    never_off: bool = False
    """Whether this board must not be switched off, nor cycled."""

    @field_validator("outlets")
    @classmethod
    def _named(cls, outlets: list[str]) -> list[str]:
        refs = [OutletRef.parse(text) for text in outlets]
        if len(set(refs)) != len(refs):
            raise ValueError("an outlet stands twice in this feed; name each once")
        return outlets

    @property
    def refs(self) -> tuple[OutletRef, ...]:
        """The outlets, taken apart."""
        return tuple(OutletRef.parse(text) for text in self.outlets)
