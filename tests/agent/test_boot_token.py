"""The request `boot` is fenced by the lease of its board, as its power is."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.boot_choice import BootRequest
from agent.power_desk import LeaseBook, lease_problem
from wire.payloads import Lease, encode

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def book(token: int | None = 5) -> LeaseBook:
    leases = LeaseBook()
    if token is not None:
        leases.heard("pi", encode(Lease(holder="broker/job-1", token=token, expires=NOW + timedelta(seconds=60))))
    return leases


@pytest.mark.parametrize(
    ("held", "token", "problem"),
    [
        (5, 5, None),
        (5, 4, "leased by broker/job-1"),
        (5, None, "leased by broker/job-1"),
        (None, None, None),
        (None, 5, "an old one"),
    ],
)
def test_who_may_choose_a_boot(held: int | None, token: int | None, problem: str | None) -> None:
    found = lease_problem("pi", token, book(held), NOW)
    assert (found is None) if problem is None else (found is not None and problem in found.message)


def test_the_token_is_no_part_of_what_is_booted() -> None:
    request = BootRequest.model_validate({"board": "pi", "token": 5})
    assert request.token == 5 and not request.chooses
