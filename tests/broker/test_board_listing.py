"""`GET /boards` and the page's mirror keep what they have shown: it is always what would be made anew."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.web.board_listing import BoardListing
from broker.web.farm_mirror import FarmMirror
from broker.web.models import BoardView

SINCE = "2026-01-01T00:00:00+00:00"
TELLS = {
    "board/{board}/state": lambda n: {
        "power": "on",
        "phase": ("ready", "busy")[n % 2],
        "since": SINCE,
        "agent": f"a{n % 2}",
        "session": 1,
        "seq": n,
    },
    "board/{board}/info": lambda n: {"arch": "arm64", "labels": {"rack": n, "note": 'ü "x"', "share": n / 3}},
    "board/{board}/self": lambda n: {"state": "online", "boot_id": f"boot-{n}", "work": f"job-{n + 1}"},
    "board/{board}/lease": lambda n: {"holder": "alice", "token": n + 1, "expires": SINCE, "comment": "ä"},
    "board/{board}/telemetry": lambda n: {"power_w": n / 7},
    "board/{board}/alert/health": lambda n: {"what": f"no. {n}", "since": SINCE},
    "agent/a0/state": lambda n: {"state": ("online", "lost", "offline")[n % 3], "session": 1, "since": SINCE},
    "agent/a1/state": lambda n: {"state": ("lost", "online")[n % 2], "session": 1, "since": SINCE},
}
STEP = st.tuples(st.sampled_from(sorted(TELLS)), st.sampled_from(("b1", "b2", "b3")), st.integers(0, 9), st.booleans())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, max_size=25))
def test_what_is_kept_is_what_would_be_made_anew(steps):
    mirror, listing = FarmMirror("boardhand"), BoardListing()
    for topic, board, n, clears in steps:
        # Telemetry is never retained, so nobody clears it.
        payload = b"" if clears and "telemetry" not in topic else json.dumps(TELLS[topic](n)).encode()
        changes = mirror.feed(f"boardhand/{topic.format(board=board)}", payload)
        assert changes or "telemetry" in topic  # each of them counts
        shown = mirror.boards()
        assert shown == [mirror._document(name, mirror._boards[name]) for name in mirror.board_names]
        told = [BoardView.model_validate(document, strict=False).model_dump(mode="json") for document in shown]
        assert json.loads(listing.encoded(shown)) == told


def test_only_what_changed_is_made_anew():
    mirror, listing = FarmMirror("boardhand"), BoardListing()
    for board in ("b1", "b2"):
        mirror.feed(f"boardhand/board/{board}/info", b'{"arch": "arm64"}')
    before = mirror.boards()
    listing.encoded(before)
    lines = {document["board"]: line for document, line in listing._kept.values()}
    mirror.feed("boardhand/board/b2/info", b'{"arch": "armhf"}')
    after = mirror.boards()
    assert after[0] is before[0]
    assert after[1] is not before[1]
    listing.encoded(after)
    again = {document["board"]: line for document, line in listing._kept.values()}
    assert again["b1"] is lines["b1"]
    assert b"armhf" in again["b2"]
    assert len(listing._kept) == 2


def test_an_agent_that_comes_or_goes_changes_its_boards():
    mirror = FarmMirror("boardhand")
    for topic, board in (("agent/a1/state", ""), ("board/{board}/state", "b1"), ("board/{board}/info", "b2")):
        mirror.feed(f"boardhand/{topic.format(board=board)}", json.dumps(TELLS[topic](3)).encode())
    before = mirror.boards()
    assert (before[0]["power"], before[0]["agent_online"]) == ("on", True)
    mirror.feed("boardhand/agent/a1/state", json.dumps(TELLS["agent/a1/state"](0)).encode())
    after = mirror.boards()
    assert (after[0]["power"], after[0]["agent_online"]) == ("unknown", False)
    assert after[1] is before[1]
