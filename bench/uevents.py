"""A storm of uevents: how long until each was digested, whether one was missed, and what the event loop felt.

    python bench/uevents.py [--events N] [--runs N] [--json]

The kernel is made to send N events (1,000) by writing to the `uevent` file of a CPU in sysfs, which needs root. Our
watch and `udevadm monitor --kernel` (if there) listen to the same storm. Every event carries a number, so that a
missed one is seen. Then the same number of USB devices is plugged in and out without the kernel, through the whole
watch with 200 boards in its book.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from agent.presence import uevents  # noqa: E402 -- found through the line above
from agent.presence.observations import marks  # noqa: E402
from agent.presence.watch import PresenceWatch  # noqa: E402

TRIGGER = Path("/sys/devices/system/cpu/cpu0/uevent")
STORM = """\
import os, sys
trigger = os.open(sys.argv[1], os.O_WRONLY)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    os.pwrite(trigger, b"change 00000000-0000-4000-8000-000000000000 NUMBER=%d" % number, 0)
"""
NUMBER = "SYNTH_ARG_NUMBER"
MAX_S = 1.0
DEADLINE_S = 60.0
LOOK_S = 0.001


class Meter:
    """Counts what our watch is handed, and how long the loop was held up at most."""

    def __init__(self, watch: PresenceWatch) -> None:
        self.numbers: list[int] = []
        self.last_s = 0.0
        self.stalled_s = 0.0
        socket = watch._uevent_socket  # noqa: SLF001 -- measured where the datagrams come out
        assert socket is not None
        self._digest, socket._on_datagram = socket._on_datagram, self._note  # noqa: SLF001

    def _note(self, datagram: bytes) -> None:
        self._digest(datagram)
        number = uevents.parse(datagram).properties.get(NUMBER)
        if number is not None:
            self.numbers.append(int(number))
            self.last_s = time.perf_counter()

    async def heartbeat(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(LOOK_S)
            self.stalled_s = max(self.stalled_s, time.perf_counter() - before - LOOK_S)


def peer() -> subprocess.Popen[str] | None:
    udevadm = shutil.which("udevadm")
    if udevadm is None:
        return None
    command = [udevadm, "monitor", "--kernel", "--property", "--subsystem-match=cpu"]
    found = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert found.stdout is not None
    while not found.stdout.readline().startswith("KERNEL"):  # its head; then it listens
        pass
    return found


async def storm(events: int) -> dict[str, float]:
    watch = PresenceWatch({}, lambda _signs: None)
    await watch.start()
    assert not watch.problems, watch.problems
    meter = Meter(watch)
    heart = asyncio.create_task(meter.heartbeat())
    foreign = await asyncio.to_thread(peer)
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STORM, str(TRIGGER), str(events), stdin=asyncio.subprocess.PIPE
    )
    assert writer.stdin is not None
    await asyncio.sleep(0.3)  # until it waits for its line; Python's start is not what is measured
    meter.stalled_s = 0.0
    began = time.perf_counter()
    writer.stdin.write(b"go\n")
    await writer.wait()
    written = time.perf_counter()
    async with asyncio.timeout(DEADLINE_S):
        while len(meter.numbers) < events:  # noqa: ASYNC110 -- what is measured knows nothing of an event
            await asyncio.sleep(LOOK_S)
    heart.cancel()
    await watch.stop()
    found = {
        "written_s": written - began,
        "digested_s": meter.last_s - began,
        "stalled_ms": meter.stalled_s * 1000,
        "missed": events - len(set(meter.numbers)),
    }
    if foreign is not None:
        found["udevadm_missed"] = events - await asyncio.to_thread(foreign_count, foreign, events)
    return found


def foreign_count(foreign: subprocess.Popen[str], events: int) -> int:
    assert foreign.stdout is not None
    seen: set[int] = set()
    for line in foreign.stdout:
        if (found := re.match(rf"{NUMBER}=(\d+)", line)) is not None:
            seen.add(int(found[1]))
            if int(found[1]) == events - 1:
                break
    foreign.terminate()
    foreign.wait()
    foreign.stdout.close()
    return len(seen)


async def plugging(events: int) -> dict[str, float]:
    """Half of them plugged in, half pulled, through parsing and book: what our own work costs."""
    signs = 0

    def count(found: list[object]) -> None:
        nonlocal signs
        signs += len(found)

    watch = PresenceWatch({f"b{n}": marks([], None, f"1-{n % 250 + 1}.{n // 250 + 1}") for n in range(200)}, count)
    raw = []
    for number in range(events):
        action, path = ("add", "remove")[number % 2], f"1-{number // 2 % 200 + 1}.1"
        body = f"ACTION={action}\0DEVPATH=/devices/{path}\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0PRODUCT=525/a4a2/404\0"
        raw.append(f"{action}@/devices/{path}\0{body}".encode())
    began = time.perf_counter()
    for datagram in raw:
        watch._uevent(datagram)  # noqa: SLF001
    return {"digested_s": time.perf_counter() - began, "missed": events - signs}


def main() -> int:
    parser = argparse.ArgumentParser(description="A storm of uevents.")
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not os.access(TRIGGER, os.W_OK):
        sys.exit(f"{TRIGGER} cannot be written: run as root, where sysfs is not read-only")
    runs = [asyncio.run(storm(options.events)) for _ in range(options.runs)]
    plugged = asyncio.run(plugging(options.events))
    if options.json:
        print(json.dumps({"events": options.events, "runs": runs, "plugging": plugged}))
    else:
        for run in runs:
            theirs = f"; udevadm missed {run['udevadm_missed']:g}" if "udevadm_missed" in run else ""
            print(
                f"{options.events} uevents written in {run['written_s'] * 1000:.0f} ms, digested after "
                f"{run['digested_s'] * 1000:.0f} ms, missed {run['missed']:g}, loop held up at most "
                f"{run['stalled_ms']:.1f} ms{theirs}"
            )
        print(f"{options.events} USB devices through the book of 200 boards: {plugged['digested_s'] * 1000:.0f} ms, "
              f"missed {plugged['missed']:g}")  # fmt: skip
    good = all(run["missed"] == 0 and run["digested_s"] < MAX_S for run in (*runs, plugged))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
