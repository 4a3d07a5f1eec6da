"""The commands `submit` and `job`: manual pages and options."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json, positive, target_of


def _submit_options(page: ArgumentParser) -> None:
    page.add_argument("file", metavar="JOB.yaml", help="the job; '-' reads standard input")
    page.add_argument("--wait", action="store_true", help="wait for its end: exit 0 passed, 1 failed, 6 the farm")
    page.add_argument("--follow", action="store_true", help="as --wait, and print its log")
    page.add_argument("--junit", metavar="FILE", type=Path, help="as --wait, and write JUnit XML")
    page.add_argument("--timeout-s", metavar="S", type=positive, help="give up submitting after this time (60)")


def _submit(args: Namespace) -> int:
    from cli.jobs import Submitting, submit

    how = Submitting(args.wait, args.follow, args.junit, args.timeout_s)
    return submit(target_of(args), args.file, how, as_json=as_json(args))


def _job_options(page: ArgumentParser) -> None:
    actions = ("show", "log", "artifacts", "junit")
    page.add_argument("action", metavar="|".join(actions), choices=actions)
    page.add_argument("job", metavar="JOB")
    page.add_argument("--follow", action="store_true", help="log: go on until the job has ended")
    page.add_argument("--get", metavar="DIR", type=Path, help="artifacts: fetch them into DIR")
    page.add_argument("--only", metavar="PATTERN", help="artifacts: those with such a name, as 'out/*.log'")
    page.add_argument("--out", metavar="FILE", type=Path, help="junit: write it there (standard output)")


def _job(args: Namespace) -> int:
    from cli.job_results import run

    return run(target_of(args), args.action, args.job, args, as_json=as_json(args))


SUBMIT = Command(
    "submit a job, and wait for it if you like",
    "Sent again while broker or MQTT server restart; submitted once.\n"
    'JSON: {"job": id}; with --wait the job\'s summary; with --follow its log as lines before that.',
    _submit_options,
    _submit,
)

JOB = Command(
    "show a job: its steps, timeline and artifacts, its log, its JUnit XML",
    "show: state, steps and what happened to it and its board. artifacts: the files that it left, or with --get\n"
    "those of its last attempt, checked by their checksums. junit: one test case per step.\n"
    'JSON: show {job, state, steps, attempts, timeline, artifacts}; artifacts {"artifacts": [{attempt, n, name,\n'
    "size, sha256, problem}]}, with --get lines with path; log lines {seq, text, step, attempt}.",
    _job_options,
    _job,
)
