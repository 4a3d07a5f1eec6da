"""One group: its own job, and those of its members."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.groups.calls import GroupCalls
from broker.groups.members import Member
from broker.jobs.life import Job


@dataclass(slots=True)
class Group:
    """`parts` and `jobs` are in the same order. `calls` is there while it has its boards."""

    job: Job
    parts: Sequence[Member]
    jobs: list[Job]
    calls: GroupCalls | None = None
    told: int | None = None
    """`BoardPool.service` when it was last found why it waits."""

    @property
    def boards(self) -> list[tuple[str, str]]:
        """Board and role of each member that has a board."""
        return [(job.board, part.role) for job, part in zip(self.jobs, self.parts, strict=True) if job.board]

    def name_of(self, job: Job) -> str:
        part = self.parts[self.jobs.index(job)]
        alone = sum(other.role == part.role for other in self.parts) == 1
        return part.role if alone else f"{part.role} {part.place + 1}"
