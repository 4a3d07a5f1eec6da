"""`[[hooks]]` of the agent's settings: programs of the admin's at points of a board's life."""

import os
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from pydantic import Field, field_validator

from agent.settings_table import Key, Table
from wire.names import Id


class HookPoint(StrEnum):
    """When a hook runs. At the points that begin with "before" it can say no."""

    BEFORE_POWER_ON = "before-power-on"
    """A command is about to switch the board on, or to cycle it."""
    AFTER_REGISTRATION = "after-registration"
    BEFORE_JOB = "before-job"
    """The broker is about to offer work to the board."""
    AFTER_JOB = "after-job"
    BEFORE_ROOT_RESET = "before-root-reset"
    AFTER_POWER_OFF = "after-power-off"
    """The board was read back as without power: by command, in a cycle, or because somebody pulled its plug."""

    @property
    def can_veto(self) -> bool:
        return self.value.startswith("before-")


class HookTable(Table):
    """One `[[hooks]]`."""

    at: HookPoint
    run: list[str] = Field(min_length=1, max_length=64)
    """The program by its whole path, and its arguments. No shell reads them."""
    boards: list[Id] = Field(default=[])
    """Only for these; empty: for all of this agent's."""
    timeout_s: float = Field(default=30.0, ge=0.1, le=600)
    """After that it is killed, with everything that it started. Power waits for it."""

    @field_validator("run")
    @classmethod
    def _can_be_run(cls, run: list[str]) -> list[str]:
        program = Path(run[0])
        if not program.is_absolute():
            raise ValueError(f"{run[0]!r}: write the whole path; a hook is not looked for on PATH")
        if not program.is_file() or not os.access(program, os.X_OK):
            raise ValueError(f"{program} is not there, or is no program: put it there and chmod +x it")
        return run


def contradictions(hooks: Sequence[HookTable], boards: Collection[str]) -> Iterator[tuple[Key, str]]:
    """Hooks for boards that this agent does not have."""
    for number, hook in enumerate(hooks):
        for board in hook.boards:
            if board not in boards:
                known = ", ".join(sorted(boards)) or "none"
                yield ("hooks", str(number), "boards"), f"there is no board {board!r}; known are: {known}"
