"""A scheduler that goes on where a predecessor's store ends."""

import logging

from broker.happenings import Moment
from broker.jobs.store import JobStore, Recovered
from broker.ledger import Policy
from broker.scheduler import Scheduler

log = logging.getLogger(__name__)


async def take_up(store: JobStore, policy: Policy, now: Moment) -> tuple[Scheduler, Recovered]:
    """The scheduler of a new session, and what was found.

    Raises:
        broker.store.sql.StoreUnavailableError: the store cannot be written.
    """
    found = await store.recover()
    scheduler = Scheduler(policy, found.session)
    scheduler.restore(
        found.jobs,
        found.tokens,
        found.outcomes,
        found.holders,
        found.next_number,
        now,
        other_boots=found.other_boots,
        boots=found.boots,
    )
    scheduler.people.restore(found.leases, now)
    scheduler.orders.restore(found.health)
    scheduler.groups.restore(found.ended_members, found.meetings, now)
    for lease in scheduler.ledger.held.values():
        job, watch = lease.job, lease.watch
        for piece in [] if watch.idle else await store.results.log_so_far(job.number, job.attempt):
            watch.feed(*piece)
    log.info("session %d: %d jobs taken up", found.session, len(found.jobs))
    return scheduler, found
