"""`boardhand job show|log|artifacts|junit`: what is kept of a job."""

import base64
import fnmatch
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from broker.jobs.junit import junit
from cli.boards import lines
from cli.exits import CliError, Exit, usage
from cli.jobs import all_pieces, job_summary, show_logs
from cli.plain_text import shown
from cli.requests import ANSWER_TIMEOUT_S, ask_broker, unreadable
from cli.target import Target, check_id
from wire.payloads import JobSummary

Line = dict[str, Any]


def run(target: Target, action: str, job: str, options: Any, *, as_json: bool) -> int:
    """One of the four actions. `options` are those of the command line."""
    check_id("job", job)
    if action == "log":
        return show_logs(target, job, follow=options.follow, as_json=as_json)
    if action == "junit":
        return write_junit(target, job, options.out)
    if action == "artifacts":
        if options.get is None:
            return list_artifacts(target, job, as_json=as_json)
        return get_artifacts(target, job, options.get, options.only, as_json=as_json)
    return show(target, job, as_json=as_json)


def paged(target: Target, verb: str, key: str, job: str) -> list[Line]:
    """A whole list that the broker tells in parts."""
    found: list[Line] = []
    while True:
        asked: dict[str, object] = {"job": job, "start": len(found)}
        data = ask_broker(target, verb, asked, timeout_s=ANSWER_TIMEOUT_S, patient=False)
        part = data.get(key)
        if not isinstance(part, list) or not all(isinstance(line, dict) for line in part):
            raise unreadable(f"{verb} of job {job}", data)
        found += part
        if not data.get("more") or not part:
            return found


def show(target: Target, job: str, *, as_json: bool) -> int:
    """Print all that is known of a job but its log."""
    data = ask_broker(target, "job", {"job": job}, timeout_s=ANSWER_TIMEOUT_S, patient=False)
    timeline, artifacts = paged(target, "timeline", "entries", job), paged(target, "artifacts", "artifacts", job)
    if as_json:
        print(json.dumps({**data, "timeline": timeline, "artifacts": artifacts}))
        return Exit.OK
    try:
        summary = JobSummary.model_validate_json(json.dumps(data))
    except ValueError:
        raise unreadable(f"word on job {job}", data) from None
    print(f"{summary.job}  {shown(summary.name, 60)}  {summary.state.value}" + _on(summary))
    if summary.reason:
        print(f"  {shown(summary.reason, 300)}")
    if data.get("notify_problem"):
        print(f"  nobody was told of it: {shown(data['notify_problem'], 300)}")
    if summary.steps:
        rows = [
            (shown(s.name, 40), _result(s.passed, s.exit_code, s.problem), f"{s.took_s:.1f} s") for s in summary.steps
        ]
        print("\n".join(lines(rows, ("STEP", "RESULT", "TIME"))))
    if timeline:
        rows = [(str(e.get("at", ""))[:19], str(e.get("attempt", "")), shown(e.get("what", ""), 150)) for e in timeline]
        print("\n".join(lines(rows, ("TIME (UTC)", "ATTEMPT", "WHAT"))))
    _print_artifacts(artifacts)
    return Exit.OK


def _on(summary: JobSummary) -> str:
    return f" on {summary.board}, attempt {summary.attempt}" if summary.board else ""


def _result(passed: bool | None, exit_code: int | None, problem: str | None) -> str:  # noqa: FBT001  # a field as it is
    what = shown(problem, 100) if problem else f"exit code {exit_code}"
    return what if passed is None else f"{'passed' if passed else 'failed'} ({what})"


def _print_artifacts(artifacts: list[Line]) -> None:
    rows = [
        (
            str(a.get("attempt", "")),
            str(a.get("size", "")),
            shown(a.get("name", ""), 80),
            shown(a.get("problem") or "", 100),
        )
        for a in artifacts
    ]
    if rows:
        print("\n".join(lines(rows, ("ATTEMPT", "BYTES", "ARTIFACT", "NOT KEPT BECAUSE"))))


def list_artifacts(target: Target, job: str, *, as_json: bool) -> int:
    """Print the files that a job left."""
    artifacts = paged(target, "artifacts", "artifacts", job)
    if as_json:
        print(json.dumps({"artifacts": artifacts}))
    elif artifacts:
        _print_artifacts(artifacts)
    else:
        print("no artifacts")
    return Exit.OK


def get_artifacts(target: Target, job: str, folder: Path, only: str | None, *, as_json: bool) -> int:
    """Fetch the files of the last attempt that left any into `folder`; 1 when one could not be had."""
    known = paged(target, "artifacts", "artifacts", job)
    last = max((line["attempt"] for line in known), default=0)
    wanted = [a for a in known if a["attempt"] == last and (only is None or fnmatch.fnmatchcase(str(a["name"]), only))]
    if not wanted:
        raise CliError(Exit.NO_ANSWER, f"job {job} left no such files", f"see 'boardhand job artifacts {job}'")
    code = Exit.OK
    for artifact in wanted:
        problem = artifact.get("problem")
        path = _inside(folder, str(artifact["name"])) if not problem else None
        if path is not None:
            _fetch(target, job, artifact, path)
        if as_json:
            print(json.dumps({**artifact, "path": str(path) if path is not None else None}), flush=True)
        elif path is not None:
            print(path, flush=True)
        else:
            print(f"{shown(artifact['name'], 200)}: {shown(problem, 200)}", file=sys.stderr)
        code = code if path is not None else Exit.FAILED
    return code


def _inside(folder: Path, name: str) -> Path:
    """Where a file goes: below `folder`, whatever the board called it."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "//", ".")]
    path = folder.joinpath(*parts)
    if not parts or ".." in parts or not path.resolve().is_relative_to(folder.resolve()):
        raise CliError(Exit.FAILED, f"artifact {shown(name, 100)}: its name leads out of {folder}", "it is left alone")
    return path


def _fetch(target: Target, job: str, artifact: Line, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".boardhand-", delete=False) as file:
            try:
                digest = hashlib.sha256()
                for piece in _pieces(target, job, artifact):
                    file.write(piece)
                    digest.update(piece)
                _check_sum(path, digest.hexdigest(), artifact)
                os.fchmod(file.fileno(), 0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise usage(f"{path}: {error.strerror}", "name a folder that can be written with --get") from None


def _check_sum(path: Path, found: str, artifact: Line) -> None:
    if found != artifact.get("sha256"):
        raise CliError(Exit.FAILED, f"artifact {path}: came with a wrong checksum", "fetch it again")


def _pieces(target: Target, job: str, artifact: Line) -> Iterator[bytes]:
    offset = 0
    while True:
        asked = {"job": job, "attempt": artifact["attempt"], "n": artifact["n"], "offset": offset}
        data = ask_broker(target, "artifact", asked, timeout_s=ANSWER_TIMEOUT_S, patient=True)
        try:
            piece = base64.b64decode(data["data"], validate=True)
            size = int(data["size"])
        except (KeyError, ValueError, TypeError):
            raise unreadable(f"piece of artifact {artifact.get('name')}", {}) from None
        yield piece
        offset += len(piece)
        if offset >= size or not piece:
            return


def junit_text(target: Target, job: str) -> str:
    """A job as JUnit XML, with the output of its last attempt."""
    summary = job_summary(target, job, patient=True)
    outputs: dict[str, list[str]] = {}
    for piece in all_pieces(target, job, follow=False):
        if piece.attempt == summary.attempt:
            outputs.setdefault(piece.step or "", []).append(piece.text)
    return junit(summary, {name: "".join(parts) for name, parts in outputs.items()})


def write_junit(target: Target, job: str, out: Path | None) -> int:
    """Write the XML to a file, or print it."""
    text = junit_text(target, job)
    if out is None:
        print(text, end="")
        return Exit.OK
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise usage(f"{out}: {error.strerror}", "name a file that can be written") from None
    return Exit.OK
