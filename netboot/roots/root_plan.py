"""What a profile says of a board's root, and whether its next boot gets a fresh view of it. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address

from netboot.roots.boot_words import RootForm, Upper
from netboot.roots.views import View

KEPT_MARK = "kept"
"""Of a view that only a person throws away. A job's mark has a colon in it."""


class Reset(StrEnum):
    """When a board gets a fresh view."""

    BOOT = "boot"
    JOB = "job"
    """At the first boot under another lease than the one before."""
    NEVER = "never"
    """When somebody asks."""


@dataclass(frozen=True, slots=True)
class RootPlan:
    """What a board's profile says of its root."""

    root: str
    address: IPv4Address
    """The board's."""
    upper: Upper = Upper.SERVER
    form: RootForm = RootForm.INITRAMFS
    reset: Reset = Reset.BOOT
    init: str | None = None
    authorised_keys: tuple[str, ...] = ()


def mark_of(plan: RootPlan, job: str) -> str:
    """What a view is marked with at a boot under `job`."""
    return {Reset.BOOT: "", Reset.JOB: job, Reset.NEVER: KEPT_MARK}[plan.reset]


def needs_reset(view: View | None, plan: RootPlan, job: str) -> bool:
    """Whether a board's next boot gets a fresh view. `job` names the lease it boots under, "" for none."""
    if view is None or (view.root, view.upper) != (plan.root, plan.upper) or plan.reset is Reset.BOOT:
        return True
    # A view without a mark was made for no job: the one that begins on a board that is up takes it over.
    return plan.reset is Reset.JOB and view.mark not in {"", job}
