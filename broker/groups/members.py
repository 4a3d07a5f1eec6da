"""A group's job as the jobs of its boards. Pure.

A group is one job that is never leased, and one for each board; these have the numbers that follow its own.
"""

from dataclasses import dataclass
from functools import lru_cache

from broker.jobs.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Member:
    """One board's part. `place` counts the boards of the role from 0."""

    role: str
    place: int
    spec: JobSpec


@lru_cache(maxsize=256)
def _members(text: str) -> tuple[Member, ...]:
    spec = JobSpec.model_validate_json(text)
    found = []
    for name, role in (spec.group or {}).items():
        own: dict[str, object] = {
            "labels": {**spec.labels, **role.labels},
            "board": role.board,
            "boot": role.boot or spec.boot,
            "env": {**spec.env, **role.env},
            "steps": role.steps or spec.steps,
        }
        # Who is told, how long it waits and how often it is tried are the group's business.
        own |= {"group": None, "notify": None, "queue_timeout_s": None, "lava": spec.with_lava}
        for place in range(role.count):
            told = f"{spec.name} [{name}{f' {place + 1}' if role.count > 1 else ''}]"
            found.append(Member(name, place, spec.model_copy(update={**own, "name": told[-256:]})))
    return tuple(found)


def members(spec: JobSpec) -> tuple[Member, ...]:
    """The parts of a group, roles in the order in which they are written; none of a job that is no group."""
    return _members(spec.model_dump_json()) if spec.group is not None else ()
