"""`boardhand simulate` on the command line: its manual page and options; the work is in `cli.simulate`."""

from argparse import ArgumentParser, Namespace

from cli.command_line import Command, as_json, count, target_of
from cli.energy_options import since
from cli.exits import usage


def _options(page: ArgumentParser) -> None:
    page.add_argument("day", metavar="DAY", nargs="?", help="a day, as --save wrote it")
    source = page.add_mutually_exclusive_group()
    source.add_argument("--record", metavar="DIR", help="take the day from the store in the broker's state_dir")
    source.add_argument("--generate", metavar="SEED", type=count, help="make a day up; the same seed, the same day")
    page.add_argument("--since", metavar="TIME", type=since, default=86400.0, help="--record: from here on (24h)")
    page.add_argument("--boards", metavar="N", type=count, default=20, help="--generate: so many boards (20)")
    page.add_argument("--jobs", metavar="N", type=count, default=200, help="--generate: so many jobs (200)")
    page.add_argument("--save", metavar="FILE", help="write the day to FILE")
    policies = "settings file whose [broker] is tried; several times for several; without it the defaults"
    page.add_argument("--policy", metavar="FILE", action="append", default=[], help=policies)


def _run(args: Namespace) -> int:
    from cli.simulate import Source, run

    if sum(given is not None for given in (args.day, args.record, args.generate)) != 1:
        raise usage("give one of: a DAY, --record DIR, --generate SEED")
    source = Source(args.day, args.record, args.since, args.generate, args.boards, args.jobs)
    return run(source, args.policy, save=args.save, target=target_of(args), as_json=as_json(args))


SIMULATE = Command(
    "replay a day of jobs against sleep policies: energy, waits, power cycles",
    "The broker's own scheduler decides, in virtual time; a day of 20 boards takes seconds. --record reads the jobs\n"
    "of a broker's store, which may be running, and asks the farm for labels and measured watts where it answers.\n"
    "Each policy stands beside always-on, in which every board stays up.\n"
    "JSON: {begin, length_s, boards, policies: [{policy, energy_kwh, saved, jobs, done, left, wait_median_s,\n"
    "wait_p95_s, wait_max_s, cycles, most_booting}]}.",
    _options,
    _run,
)
