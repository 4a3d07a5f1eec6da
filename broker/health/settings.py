"""`[[broker.health]]`: which boards run which health job, when, and how new ones are trained."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from broker.health.trust import HealthRule
from broker.jobs.labels import Want
from broker.jobs.spec import JobSpec, JobSpecError, parse_job
from wire.names import Id
from wire.payloads import ShortText

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_SPAN = re.compile(r"([1-9]\d{0,5})(m|h|d|w)")
MAX_JOB_BYTES = 128 * 1024


class HealthTable(BaseModel):
    """One `[[broker.health]]`. The first that fits a board holds for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: Path
    """A job file without `board`, `labels` and `group`."""
    labels: dict[ShortText, Any] = {}
    """What the boards have, as a job writes it; empty: every board."""
    boards: Annotated[list[Id], Field(max_length=10_000)] = []
    """Of those only these."""
    every: str | None = None
    """`"24h"`, `"30m"`, `"7d"`: a trusted board is checked again after so long; without it never."""
    on: list[Literal["new", "fault"]] = ["new", "fault"]
    """Also when the board is new, and after it was in fault."""
    limit: int = Field(default=3, ge=1, le=100)
    """So many failures in a row put the board into fault."""
    train_boots: int = Field(default=0, ge=0, le=100)
    """A new board is booted cold so many times in a row before its first health job; 0: not at all."""
    retry_s: float = Field(default=60, ge=0, le=86400)
    """Pause after a failure."""
    _spec: JobSpec = PrivateAttr()

    @field_validator("labels")
    @classmethod
    def _labels_can_be_asked_for(cls, labels: dict[str, Any]) -> dict[str, Any]:
        for label, written in labels.items():
            try:
                Want.parse(label, written)
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from None
        return labels

    @field_validator("every")
    @classmethod
    def _span(cls, text: str | None) -> str | None:
        if text is not None and _SPAN.fullmatch(text) is None:
            raise ValueError(f"{text!r} is no time: write a number and m, h, d or w, as in 24h")
        return text

    @model_validator(mode="after")
    def _job_can_be_read(self) -> Self:
        try:
            text = self.job.read_bytes()[: MAX_JOB_BYTES + 1].decode()
            spec = parse_job(text)
        except OSError as error:
            raise ValueError(f"job: {self.job} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"job: {self.job} is no UTF-8 text") from None
        except JobSpecError as error:
            raise ValueError(f"job: {self.job}: {error}") from None
        if spec.board is not None or spec.labels or spec.group:
            raise ValueError(f"job: {self.job} names board, labels or group: a health job runs on whatever is checked")
        self._spec = spec
        return self

    def rule(self) -> HealthRule:
        """The rule for the core."""
        span = _SPAN.fullmatch(self.every) if self.every is not None else None
        return HealthRule(
            spec=self._spec,
            wants=tuple(Want.parse(label, written) for label, written in self.labels.items()),
            boards=frozenset(self.boards),
            every_s=int(span[1]) * _UNITS[span[2]] if span is not None else None,
            on_new="new" in self.on,
            on_fault="fault" in self.on,
            limit=self.limit,
            train_boots=self.train_boots,
            retry_s=self.retry_s,
        )
