"""How long `boardhand learn` takes on a virtual farm whose cabling it does not know, and whether it is right.

`python bench/learn.py`: 3 QEMU and 13 light boards on three controllers and two PDUs, shuffled by a seed. The limit is
twice the sum of their boot times, divided by the number that may boot at once.
"""

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cli import private_mosquitto  # noqa: E402
from virtual_lab import farm, farm_plan  # noqa: E402

START_S, STOP_S = 300.0, 60.0
"""A kernel may have to be fetched first."""
PDUS = 2


@dataclass(frozen=True)
class Cabling:
    """Which outlet feeds which light board."""

    outlet_of: dict[str, str]
    empty: tuple[str, ...]

    @classmethod
    def shuffled(cls, seed: int, lights: int, empty: int) -> "Cabling":
        chance = random.Random(seed)
        places = [f"pdu-{pdu}:{outlet}" for pdu in range(1, PDUS + 1) for outlet in range(1, 25)]
        chosen = chance.sample(places, lights + empty)
        boards = {f"light-{number}": chosen[number - 1] for number in range(1, lights + 1)}
        return cls(boards, tuple(chosen[lights:]))


def farm_process(arguments: list[str]) -> int:
    """`virtual_lab.farm` with our cabling, and an agent that knows of no board."""
    options = json.loads(arguments[0])
    cabling = Cabling.shuffled(options["seed"], options["lights"], options["empty"])
    light_boards, agent_toml = farm_plan.light_boards, farm_plan.agent_toml

    def shuffled(count: int, *, on_pdus: bool = False, boot_s: float = 0.0) -> list[farm_plan.LightBoardPlan]:
        found = []
        for light in light_boards(count, on_pdus=on_pdus, boot_s=boot_s):
            pdu, _, outlet = cabling.outlet_of[light.board].removeprefix("pdu-").partition(":")
            found.append(replace(light, pdu=int(pdu), outlet=int(outlet)))
        return found

    def unknown(plan: farm_plan.FarmPlan) -> str:
        return re.sub(r"\n\[boards\.[^\]]*\]\n(?:[^\[\n][^\n]*\n)*", "\n", agent_toml(plan))

    farm_plan.light_boards, farm_plan.agent_toml = shuffled, unknown
    return farm.main(arguments[1:])


@dataclass(frozen=True)
class Size:
    """What to try."""

    qemu: int
    lights: int
    empty: int
    at_once: int
    light_boot_s: float
    listen_s: float
    quiet_s: float
    seed: int


class LearnFarm:
    """A farm that runs, and what is true of it."""

    def __init__(self, folder: Path, size: Size, url: str) -> None:
        self.folder, self.size, self.url = folder, size, url
        self.cabling = Cabling.shuffled(size.seed, size.lights, size.empty)

    @contextmanager
    def running(self) -> Iterator[dict[str, Any]]:
        size = self.size
        given = json.dumps({"seed": size.seed, "lights": size.lights, "empty": size.empty})
        command = [
            *(sys.executable, str(ROOT / "bench" / "learn.py"), "--farm", given),
            *("--dir", str(self.folder / "farm"), "--mqtt", self.url, "--boards", str(size.qemu)),
            *("--unlisted", str(size.qemu), "--light", str(size.lights), "--pdu", "--joining", "open"),
            *("--light-boot-s", str(size.light_boot_s)),
        ]
        out = self.folder / "farm-out.log"
        with out.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                deadline = time.monotonic() + START_S
                while '{"ready": true}' not in out.read_text():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"the farm did not come up: {out.read_text()[-2000:]}")
                    time.sleep(0.1)
                yield json.loads((self.folder / "farm" / "farm.json").read_text())
            finally:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
                process.kill()

    def outlets(self) -> list[str]:
        """Those to try: of the PDUs the ones with a board, and the empty ones."""
        qemu = [f"vpower-{number}:{farm_plan.OUTLET}" for number in range(1, self.size.qemu + 1)]
        names = [*qemu, *self.cabling.outlet_of.values(), *self.cabling.empty]
        random.Random(self.size.seed + 1).shuffle(names)
        return names

    def learn(self, state: dict[str, Any], *more: str) -> dict[str, Any]:
        """Run `boardhand learn`; its result."""
        size = self.size
        rules = {"at-once": size.at_once, "listen-s": size.listen_s, "quiet-s": size.quiet_s}
        command = [sys.executable, "-m", "cli", "learn", "--json", "--mqtt", self.url, *more]
        command += [word for name, value in rules.items() for word in (f"--{name}", str(value))]
        command += [word for outlet in self.outlets() for word in ("--outlet", outlet)]
        command += [word for board in state["boards"].values() for word in ("--console", f"unix:{board['console']}")]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False, env=env)
        lines = done.stdout.splitlines()
        (self.folder / "learn.jsonl").write_text(done.stdout)
        if done.returncode or not lines:
            raise RuntimeError(f"learn ended with {done.returncode}: {done.stderr[-2000:]}")
        result: dict[str, Any] = json.loads(lines[-1])
        return result

    def faults(self, found: dict[str, Any], state: dict[str, Any]) -> list[str]:
        """Rows that are not so, and boards that are missing."""
        truth: dict[tuple[str, ...], tuple[set[str], set[str]]] = {}
        for number, board in enumerate(state["boards"].values(), 1):
            truth[f"vpower-{number}:{farm_plan.OUTLET}",] = ({board["mac"]}, {f"unix:{board['console']}"})
        for name, light in state["lights"].items():
            truth[self.cabling.outlet_of[name],] = ({light["mac"]}, set())
        told = {tuple(row["feed"]): row for row in found["rows"]}
        faults = [f"{feed}: nothing hangs there, or it is another's" for feed in told.keys() - truth.keys()]
        faults += [f"{feed}: not found" for feed in truth.keys() - told.keys()]
        for feed, row in told.items():
            if feed in truth and (set(row["macs"]), set(row["consoles"])) != truth[feed]:
                faults.append(f"{feed}: {row['macs']} {row['consoles']}, and true is {truth[feed]}")
        return faults


def measure(size: Size, folder: Path) -> dict[str, Any]:
    """One run: how long it took, and what was wrong."""
    with private_mosquitto_at(folder) as url:
        ours = LearnFarm(folder, size, url)
        with ours.running() as state:
            found = ours.learn(state)
            faults = ours.faults(found, state)
    boots = [row["boot_s"] for row in found["rows"] if row["boot_s"] is not None]
    limit_s = 2 * sum(boots) / size.at_once
    return {"took_s": found["took_s"], "limit_s": round(limit_s, 1), "boots_s": boots, "faults": faults, "found": found}


@contextmanager
def private_mosquitto_at(folder: Path) -> Iterator[str]:
    """A Mosquitto for this run alone."""
    port = private_mosquitto.free_port()
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with (folder / "mosquitto.log").open("wb") as log:
        server = subprocess.Popen([private_mosquitto.program(), "-c", str(settings)], stdout=log, stderr=log)
    try:
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--qemu", type=int, default=3)
    parser.add_argument("--lights", type=int, default=13)
    parser.add_argument("--empty", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--light-boot-s", type=float, default=20.0)
    parser.add_argument("--listen-s", type=float, default=60.0)
    parser.add_argument("--quiet-s", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="leave all files there")
    options = vars(parser.parse_args())
    keep = options.pop("keep")
    size = Size(**options)
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bh-learn-")))
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(size, folder)
    boots = result["boots_s"]
    print(f"{size.qemu} QEMU and {size.lights} light boards, {size.at_once} at once, seed {size.seed}")
    print(f"boots: {len(boots)} of {min(boots):.1f} to {max(boots):.1f} s, together {sum(boots):.0f} s")
    print(f"learnt in {result['took_s']:.0f} s; the limit is {result['limit_s']:.0f} s")
    for fault in result["faults"]:
        print(f"WRONG: {fault}")
    return int(bool(result["faults"]) or result["took_s"] >= result["limit_s"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--farm"]:
        sys.exit(farm_process(sys.argv[2:]))
    sys.exit(main())
