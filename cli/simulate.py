"""`boardhand simulate`: get a day, replay it against policies, print them side by side."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.ledger import Policy
from broker.settings import read_settings
from broker.sleep.day_recording import Day, DayError, generate, read_day, record
from broker.sleep.simulation import Tally, compare
from cli.boards import lines
from cli.energy_table import duration
from cli.exits import CliError, Exit
from cli.simulate_farm import boards_of_farm
from cli.target import Target
from daemon.settings_file import SettingsError

HEADS = ("POLICY", "ENERGY", "SAVED", "DONE", "WAIT MEDIAN", "95 %", "LONGEST", "POWER CYCLES")
SHOWN_LEFT = 5


@dataclass(frozen=True, slots=True)
class Source:
    """Where the day comes from: one of `day`, `state_dir` and `seed`."""

    day: str | None
    state_dir: str | None
    since: float | str
    seed: int | None
    boards: int
    jobs: int


def run(source: Source, policies: Sequence[str], *, save: str | None, target: Target, as_json: bool) -> int:
    """Replay, and print.

    Raises:
        CliError: a file cannot be read or written, or is wrong.
    """
    tried = _policies(policies)
    try:
        day = _day(source, target)
    except DayError as error:
        raise CliError(Exit.USAGE, str(error), "see 'boardhand simulate --help'") from error
    if save is not None:
        try:
            Path(save).write_text(day.model_dump_json(exclude_defaults=True, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise CliError(Exit.USAGE, f"{save}: cannot be written: {error.strerror}", "name another file") from error
    tallies = compare(day, tried)
    if as_json:
        print(json.dumps(_document(day, tallies)))
    else:
        _show(day, tallies)
    return Exit.OK


def _policies(files: Sequence[str]) -> dict[str, Policy]:
    if not files:
        return {"defaults": Policy()}
    try:
        return {file: read_settings(Path(file)).broker.policy() for file in files}
    except SettingsError as error:
        raise CliError(Exit.USAGE, str(error), "see docs/sleep.md") from error


def _day(source: Source, target: Target) -> Day:
    if source.day is not None:
        return read_day(Path(source.day))
    if source.seed is not None:
        return generate(source.seed, source.boards, source.jobs)
    now = datetime.now(UTC)
    begin = datetime.fromisoformat(source.since) if isinstance(source.since, str) else _back(now, source.since)
    if begin >= now:
        raise DayError(f"{begin.isoformat()} has not come yet")
    boards = boards_of_farm(target, source.since)
    return record(Path(source.state_dir or ""), boards, begin, now)


def _back(now: datetime, seconds: float) -> datetime:
    return now - timedelta(seconds=seconds)


def _document(day: Day, tallies: Sequence[Tally]) -> dict[str, object]:
    return {
        "begin": day.begin.isoformat(),
        "length_s": day.length_s,
        "boards": len(day.boards),
        "policies": [{**asdict(tally), "saved": tally.saved} for tally in tallies],
    }


def _show(day: Day, tallies: Sequence[Tally]) -> None:
    print(
        f"{len(day.jobs)} jobs on {len(day.boards)} boards, {duration(day.length_s)} from {day.begin:%Y-%m-%d %H:%M %Z}"
    )
    print("\n".join(lines([*map(_row, tallies)], HEADS)))
    for tally in tallies:
        for job, why in list(tally.left.items())[:SHOWN_LEFT]:
            print(f"{tally.policy}: {job} never ran: {why}", file=sys.stderr)
        if len(tally.left) > SHOWN_LEFT:
            print(f"{tally.policy}: and {len(tally.left) - SHOWN_LEFT} more", file=sys.stderr)


def _row(tally: Tally) -> tuple[str, ...]:
    return (
        tally.policy,
        f"{tally.energy_kwh:.3f} kWh",
        f"{tally.saved:.0%}",
        f"{tally.done}/{tally.jobs}",
        duration(tally.wait_median_s),
        duration(tally.wait_p95_s),
        duration(tally.wait_max_s),
        str(tally.cycles),
    )
