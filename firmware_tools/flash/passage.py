"""Brings a board from one mode into another: a table of what comes after what, without I/O and without a clock.

    passage = Passage("flash", steps, back=("normal", steps))
    while (step := passage.next()) is not None:
        ...carry it out...
        passage.done() or passage.failed("the relay does not answer")
    passage.ended

Where a step fails the passage turns round once and goes the way back; a step of the way back that fails is noted, and
the steps after it are tried all the same: a strap that cannot be reached is no reason to leave the SD card unplugged.
"""

from collections.abc import Sequence
from enum import StrEnum

from firmware_tools.flash.modes import Step


class Stage(StrEnum):
    """Where a passage is."""

    FORTH = "forth"
    BACK = "back"
    ARRIVED = "arrived"
    """In the mode that was asked for."""
    RETURNED = "returned"
    """In the mode to fall back to, every step of it done."""
    STRANDED = "stranded"
    """Not every step of the way back could be done: somebody has to look."""


class Word(StrEnum):
    """What can be said to a passage."""

    DONE = "done"
    FAILED = "failed"
    LAST_DONE = "last done"
    """The step was the last of its way."""
    LAST_DONE_BADLY = "last done badly"
    """The same, and a step of the way back has failed."""


TABLE: dict[tuple[Stage, Word], Stage] = {
    (Stage.FORTH, Word.DONE): Stage.FORTH,
    (Stage.FORTH, Word.LAST_DONE): Stage.ARRIVED,
    (Stage.FORTH, Word.FAILED): Stage.BACK,
    (Stage.BACK, Word.DONE): Stage.BACK,
    (Stage.BACK, Word.FAILED): Stage.BACK,
    (Stage.BACK, Word.LAST_DONE): Stage.RETURNED,
    (Stage.BACK, Word.LAST_DONE_BADLY): Stage.STRANDED,
}
"""What is not here is a defect of the caller's."""


class Passage:
    """One change of mode.

    Attributes:
        why: what failed on the way forth, None while nothing has.
        also: what failed on the way back.
    """

    def __init__(self, mode: str, forth: Sequence[Step], back_mode: str, back: Sequence[Step]) -> None:
        self._mode, self._back_mode = mode, back_mode
        self._steps = list(forth)
        self._back = list(back)
        self._at = 0
        self.stage = Stage.FORTH if forth else Stage.ARRIVED
        self.why: str | None = None
        self.also: list[str] = []

    @property
    def mode(self) -> str | None:
        """In which mode the board is by now; None in between, and where it is stranded."""
        return {Stage.ARRIVED: self._mode, Stage.RETURNED: self._back_mode}.get(self.stage)

    @property
    def bound_for(self) -> str:
        """The mode to which it leads from where it is."""
        return self._mode if self.stage in {Stage.FORTH, Stage.ARRIVED} else self._back_mode

    @property
    def percent(self) -> float:
        """How much of the way is behind it."""
        return 100.0 if not self._steps else 100.0 * self._at / len(self._steps)

    def next(self) -> Step | None:
        """The step to be carried out now; None when it is over."""
        return self._steps[self._at] if self.stage in {Stage.FORTH, Stage.BACK} else None

    def done(self) -> None:
        """The step was carried out, and read back where that can be."""
        self._at += 1
        last = self._at == len(self._steps)
        ending = Word.LAST_DONE_BADLY if self.also else Word.LAST_DONE
        self._move(ending if last else Word.DONE)

    def failed(self, why: str) -> None:
        """The step could not be carried out."""
        if self.stage is Stage.FORTH:
            self.why = why
            self._steps, self._at = self._back, 0
            self._move(Word.FAILED)
            if not self._steps:
                self.stage = Stage.RETURNED
            return
        self._move(Word.FAILED)
        self.also.append(why)
        self.done()

    def turn_back(self, why: str) -> None:
        """Go the way back from wherever it is: what the mode was for has failed, or was given up."""
        if self.stage in {Stage.FORTH, Stage.ARRIVED}:
            self.stage = Stage.FORTH
            self.failed(why)

    def _move(self, word: Word) -> None:
        try:
            self.stage = TABLE[self.stage, word]
        except KeyError:
            raise RuntimeError(f"a passage that is {self.stage} was told {word}") from None
