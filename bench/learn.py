"""How long `boardhand learn` takes on a virtual farm whose cabling it does not know, and whether it is right.

`python bench/learn.py --seed 3`: 3 QEMU and 13 light boards on a metered PDU, one without meters (both SNMP) and a
strip by HTTP, outlets and serial ports shuffled by the seed; a board is fed by two outlets, one is silent, two have no
client, some outlets are empty, some are on, and one is marked to be left alone. The limit is twice the sum of the boot
times, divided by the number that may boot at once. After it the plugs of two boards change places, one of the two is
switched on, and the agent has to say which cable moved where. `--shuffles 20` does seeds 1 to 20 one after the other.

Exit code 1: something was wrong, something that could be known was not, or the moved cable was not told.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.support.learn_cabling import PLAIN, SMALL, Size, Truth, shuffled  # noqa: E402
from bench.support.learn_farm import LearnFarm, private_mosquitto_at, until  # noqa: E402
from bench.support.learn_judge import Verdict, judge, judge_state  # noqa: E402

DRAIN_S = 32.0
"""A board that went off less than 30 s ago may still be heard, so that no moved cable is told."""
ALERT_S = 120.0


@dataclass
class Shuffle:
    """One run. Times are seconds; `problem` is why it could not be done."""

    seed: int
    verdict: Verdict = field(default_factory=Verdict)
    took_s: float = 0.0
    limit_s: float = 0.0
    boots_s: list[float] = field(default_factory=list)
    whole_s: float = 0.0
    moved: str = ""
    """What the alert said of the cable that was moved."""
    moved_good: bool = False
    problem: str = ""
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return self.verdict.good and self.moved_good and not self.problem

    def line(self) -> str:
        verdict = self.verdict
        return (
            f"{self.seed:4}  {len(verdict.right):5}  {len(verdict.unknown):7}  {len(verdict.missed):6}  "
            f"{len(verdict.wrong):5}  {'yes' if self.moved_good else 'NO':>5}  {self.took_s:6.0f}  "
            f"{self.limit_s:7.0f}  {self.whole_s:5.0f}  {self.problem}"
        )


HEAD = "seed  right  unknown  missed  wrong  moved  took s  limit s  all s"


def swappable(truth: Truth, seed: int) -> tuple[str, str]:
    """Two boards whose plugs may change places: both off, and the second one heard soon after its power came."""
    chance = random.Random(seed + 1000)
    off = [board for board in truth.boards.values() if len(board.feed) == 1 and board.feed[0] not in truth.found_on]
    moved = chance.choice([board for board in off if board.macs and board.links and board.registers])
    place = chance.choice([board for board in off if board.macs and board.name != moved.name])
    return place.name, moved.name


def expected(truth: Truth, place: str, moved: str) -> str:
    """What the alert has to say."""
    where = ", ".join(truth.boards[place].feed)
    return f"nothing of {place}, whose outlet {where} is on: the power cable of {moved} hangs there now"


def move_a_cable(farm: LearnFarm, found: dict[str, Any]) -> tuple[str, bool]:
    """After learning: two plugs change places, one board is switched on; what the agent says, and whether it's so."""
    truth = farm.truth
    farm.take_up(found)
    taken_up = time.monotonic()
    place, moved = swappable(truth, farm.size.seed)
    farm.hand(do="swap", outlets=[truth.boards[place].feed[0], truth.boards[moved].feed[0]])
    time.sleep(max(0.0, taken_up + DRAIN_S - time.monotonic()))
    farm.told("power", place, "on")
    said = until(lambda: farm.alert(moved), f"an alert for {moved}, which hangs where {place} did", ALERT_S)
    return said, expected(truth, place, moved) in said


def measure(size: Size, folder: Path, result: Shuffle) -> None:
    """One run: `result` gets how long it took, and what was wrong."""
    truth = shuffled(size)
    with private_mosquitto_at(folder) as url:
        farm = LearnFarm(folder, size, truth, url)
        with farm.running():
            result.found = found = farm.learn()
            result.took_s = found["took_s"]
            result.boots_s = [row["boot_s"] for row in found["rows"] if row["boot_s"] is not None]
            result.limit_s = 2 * sum(result.boots_s) / size.at_once
            result.verdict = judge(truth, found)
            state = farm.hand(do="state")
            judge_state(result.verdict, truth, state["on"], state["edges"])
            result.moved, result.moved_good = move_a_cable(farm, found)


@contextlib.contextmanager
def _folder(keep: Path | None, seed: int) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="bh-learn-") as name:
            yield Path(name)
    else:
        folder = keep / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def tell(result: Shuffle, size: Size) -> None:
    """All of one run."""
    verdict, boots = result.verdict, result.boots_s
    print(f"seed {size.seed}: {size.qemu} QEMU and {size.lights} light boards, {size.at_once} at once")
    if boots:
        print(f"boots: {len(boots)} of {min(boots):.1f} to {max(boots):.1f} s, together {sum(boots):.0f} s")
    print(
        f"learnt in {result.took_s:.0f} s; the limit is {result.limit_s:.0f} s; all of it took {result.whole_s:.0f} s"
    )
    print(f"right: {len(verdict.right)} boards")
    for name, because in verdict.unknown.items():
        print(f"unknown: {name}: {because}")
    for what, lines in (("MISSED", verdict.missed), ("WRONG", verdict.wrong)):
        for line in lines:
            print(f"{what}: {line}")
    if result.moved:
        print(f"{'moved' if result.moved_good else 'WRONG'}: {result.moved}")
    if result.problem:
        print(f"FAILED: {result.problem}")


def _one(size: Size, keep: Path | None) -> Shuffle:
    with _folder(keep, size.seed) as folder:
        began, result = time.monotonic(), Shuffle(size.seed)
        try:
            measure(size, folder, result)
        except (RuntimeError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            result.problem = f"{type(error).__name__}: {error}"
        result.whole_s = time.monotonic() - began
        if keep is not None:
            (folder / "result.json").write_text(json.dumps(asdict(result), indent=1))
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="which shuffle, or the first of them")
    parser.add_argument("--shuffles", type=int, default=1, metavar="N", help="so many seeds, one after the other")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many farms at a time (1)")
    parser.add_argument("--plain", action="store_true", help="whole boards alone, slower, for the figure of time")
    parser.add_argument("--small", action="store_true", help="1 QEMU and 6 light boards, as the test has it")
    for name, kind in (("qemu", int), ("lights", int), ("at-once", int), ("light-boot-s", float), ("listen-s", float)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--quiet-s", type=float)
    parser.add_argument("--keep", type=Path, help="leave all files there, one folder for each seed")
    return parser.parse_args()


def main() -> int:
    options = vars(_options())
    shuffles, keep, seed, jobs = (options.pop(name) for name in ("shuffles", "keep", "seed", "jobs"))
    small, plain = options.pop("small"), options.pop("plain")
    size = SMALL if small else PLAIN if plain else Size()
    size = replace(size, **{key: value for key, value in options.items() if value is not None})
    sizes = [replace(size, seed=number) for number in range(seed, seed + shuffles)]
    results = []
    if shuffles > 1:
        print(HEAD, flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        for ours, result in zip(sizes, pool.map(_one, sizes, repeat(keep)), strict=True):
            results.append(result)
            if shuffles == 1 or not result.good:
                tell(result, ours)
            if shuffles > 1:
                print(result.line(), flush=True)
    good = sum(result.good for result in results)
    late = sum(result.took_s >= result.limit_s for result in results)
    print(f"{good} of {len(results)} good, {late} above the limit of time")
    return int(good < len(results))


if __name__ == "__main__":
    sys.exit(main())
