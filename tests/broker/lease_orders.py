"""Orders about leases, as a person gives them, and what is told of them."""

from broker.jobs.labels import Want
from broker.leases.happenings import ExtendLease, HandOver, Release, Reserve, TellLease
from broker.matching.waiting import Needs

HOUR_S = 3600.0
ARM = (Want("arch", "==", ("arm64",)),)


def ask(world, order):
    """The answer to an order; what was told of leases on the way is kept in `world.told`."""
    actions = world.tell(order)
    world.told = getattr(world, "told", []) + [a.notice for a in actions if isinstance(a, TellLease)]
    found = [reply for reply in world.replies if reply.tag == order.tag]
    return found[-1] if found else None


def reserve(world, holder, board=None, wants=(), for_s=HOUR_S, **how):
    needs = Needs(board, wants, still=not how.get("wake", False))
    return ask(world, Reserve(f"t{next(world.tags)}", holder, needs, for_s, **how))


def release(world, lease, holder=None):
    return ask(world, Release(f"t{next(world.tags)}", lease, holder))


def extend(world, lease, for_s, holder=None):
    return ask(world, ExtendLease(f"t{next(world.tags)}", lease, for_s, holder))


def hand_over(world, lease, to, holder=None):
    return ask(world, HandOver(f"t{next(world.tags)}", lease, to, holder))


def lines(world):
    return {lease.id: (lease.holder, lease.board, waits) for lease, waits in world.scheduler.people.lines()}


def notices(actions):
    return [(a.notice.lease, a.notice.stage) for a in actions if isinstance(a, TellLease)]
