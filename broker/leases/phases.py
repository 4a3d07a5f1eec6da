"""What a lease waits for before its work is offered: its own boot, and the agent's word."""

from dataclasses import dataclass
from enum import StrEnum


class BootStage(StrEnum):
    """How far the boot of a job that brings its own has come."""

    ASKED = "asked"
    """The agent fetches the files and will say when the next boot gets them."""
    SWITCHED = "switched"
    """The power command is out; a boot that is not the one before is waited for."""
    DIAGNOSIS = "diagnosis"
    """It has failed, and the agent is asked why."""


@dataclass(slots=True)
class BootWait:
    """The boot phase of a lease. Times are monotonic seconds."""

    stage: BootStage
    id: str
    """Of the request to the agent and of the power command."""
    before: str | None
    """The boot that the board was in, or was last."""
    ask_again: float
    deadline: float
    careful: bool = False
    """A predecessor's power command may still be under way: a boot that is seen before ours was done does not last."""
    done: bool = False
    """Our power command was carried out."""
    why: str = ""
    """What has failed, while the diagnosis is waited for."""

    @property
    def up(self) -> bool:
        """A boot that is not the one before is ours."""
        return self.stage is BootStage.SWITCHED and (self.done or not self.careful)


@dataclass(slots=True)
class GateWait:
    """The agent was asked whether the board may take the job. Times are monotonic seconds."""

    id: str
    """Of the request."""
    deadline: float
    granted: bool = False
    lost: bool = False
    """The agent went away since, and must be asked again."""
