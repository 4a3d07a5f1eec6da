"""`boardhand up --demo`: a short story on the screen. Boards boot, one runs a job, sleeps, and is woken by the next.

Every sentence is said only after it was seen over MQTT; the exit code is 0 only if all of it was seen.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cli.exits import CliError, Exit
from cli.farm_view import BoardRow, FarmView
from cli.jobs import job_summary, log_pieces
from cli.plain_text import shown, shown_log
from cli.requests import SUBMIT_TIMEOUT_S, ask_broker, unreadable
from cli.session import Session, new_id
from cli.target import Target, check_id
from cli.up_report import Report
from wire.payloads import JobSummary, PayloadError, PowerCommand, PowerResult, decode, encode
from wire.phases import JobState, Phase, Power, PowerAction
from wire.topics import Topics

LOOK_S = 0.25
POWER_EXPIRES_S = 60.0  # as 'boardhand power' gives it
MARK = "boardhand demo"  # must come back in the job's log
_COMING_UP = {Phase.STARTING, Phase.NETBOOT, Phase.BOOTING, Phase.READY, Phase.BUSY}
_PHASE_STORY = {
    Phase.STARTING: "power is on, read back from the hardware",
    Phase.NETBOOT: "asks for an address and its boot files",
    Phase.BOOTING: "has fetched its kernel and boots",
    Phase.READY: "has registered and asks for work",
    Phase.BUSY: "works",
    Phase.SLEEPING: "had nothing to do and was switched off",
    Phase.FAULT: "has a fault",
}


@dataclass(slots=True)
class _Track:
    """The phases of one board so far, in order."""

    phases: list[str] = field(default_factory=list)


class Demo:
    """One run, with the boards of `agent` alone: others on the same server are somebody's real hardware. Blocking;
    `cancelled` ends it within a quarter of a second."""

    def __init__(
        self,
        target: Target,
        boards: int,
        report: Report,
        cancelled: threading.Event,
        *,
        agent: str,
        has_shell: bool,
        deadline_s: float,
    ) -> None:
        """`has_shell` is false for light boards, which know little more than echo."""
        self._target = target
        self._agent = agent
        self._has_shell = has_shell
        self._boards = boards
        self._report = report
        self._cancelled = cancelled
        self._deadline_s = deadline_s
        self._view = FarmView(target.prefix)
        self._topics = Topics(target.prefix)
        self._tracks: dict[str, _Track] = {}

    def run(self) -> int:
        """Tell the story.

        Raises:
            CliError: something of it was not seen before the deadline, or a job did not pass.
        """
        started_s = self._started_s = time.monotonic()
        with Session(self._target) as self._session:
            self._session.subscribe(*self._view.filters(), self._topics.every_board("power/result"))
            self._until(lambda: len(self._rows()) >= self._boards, "not all boards were announced")
            self._report.say(f"-- 1. {self._boards} board(s) are switched on")
            self._switch_on()
            self._until(self._all_were_ready, "not all boards became ready")
            self._report.say("-- 2. a job")
            first = self._job("demo-1", None)
            board = first.board
            if board is None:
                raise CliError(Exit.FAILED, f"job {first.job} passed, and the broker names no board")
            self._report.say(f"-- 3. {board} falls asleep")
            self._until(lambda: self._sleeps(board), f"{board} did not go to sleep")
            before = len(self._track(board).phases)
            self._report.say(f"-- 4. a job for {board} wakes it")
            self._job("demo-2", board)
            woken = self._track(board).phases[before:]
            if not _COMING_UP & set(woken):
                raise CliError(Exit.FAILED, f"the second job passed, and {board} was not seen to wake")
        took_s = time.monotonic() - started_s
        self._report.say(
            f"-- seen: {self._boards} board(s) booted and registered; a job ran on {board}; it slept with its power "
            f"off; a second job woke it ({' > '.join(woken)}) and passed. {took_s:.0f} s."
        )
        return Exit.OK

    def _switch_on(self) -> None:
        """Ask for power on every board. Those that are on already are told the same again, which changes nothing."""
        expires = datetime.now(UTC) + timedelta(seconds=POWER_EXPIRES_S)
        for row in self._rows():
            command = PowerCommand(power=PowerAction.ON, id="demo-" + new_id(), expires=expires)
            self._session.publish(self._topics.power_set(row.board), encode(command))

    def _take_result(self, topic: str, payload: bytes) -> None:
        found = self._topics.parse_board(topic)
        if found is None or found.board not in self._tracks:
            return
        try:
            result = decode(PowerResult, payload)
        except PayloadError as error:
            raise CliError(Exit.FAILED, f"demo: power result of {found.board} cannot be read: {shown(error)}") from None
        if not result.ok:
            why = result.error.message if result.error else "no reason given"
            raise CliError(Exit.FAILED, f"demo: {found.board} was not switched {result.action or ''}: {shown(why)}")
        self._report.say(f"   {found.board}: power {result.power}, verified in {result.took_ms:.0f} ms")

    # --- watching ---

    def _track(self, board: str) -> _Track:
        return self._tracks.setdefault(board, _Track())

    def _look(self) -> None:
        """Take what MQTT has for us, for at most `LOOK_S`."""
        if self._cancelled.is_set():
            raise CliError(Exit.INTERRUPTED, "the demo was stopped")
        message = self._session.receive(LOOK_S)
        while message is not None:
            if self._view.feed(message.topic, message.payload):
                for row in self._rows():
                    self._tell(row)
            else:
                self._take_result(message.topic, message.payload)
            message = self._session.receive(0.0)

    def _rows(self) -> list[BoardRow]:
        return [row for row in self._view.rows() if row.agent == self._agent and row.current]

    def _tell(self, row: BoardRow) -> None:
        phases = self._track(row.board).phases
        if phases and phases[-1] == row.phase:
            return
        phases.append(row.phase)
        story = _PHASE_STORY.get(Phase(row.phase), "")
        reason = f" ({row.reason})" if row.reason else ""
        self._report.say(f"   {row.board}: {row.phase}{': ' if story else ''}{story}{reason}")

    def _late(self) -> bool:
        return time.monotonic() - self._started_s > self._deadline_s

    def _until(self, seen: Callable[[], bool], otherwise: str) -> None:
        while not seen():
            if self._late():
                raise CliError(Exit.FAILED, f"demo: {otherwise} within {self._deadline_s:g} s ({self._picture()})")
            self._look()

    def _picture(self) -> str:
        return "; ".join(f"{row.board} {row.power}, {row.phase}" for row in self._rows()) or "no boards seen"

    def _all_were_ready(self) -> bool:
        ready = [name for name, track in self._tracks.items() if Phase.READY in track.phases]
        return len(ready) >= self._boards

    def _sleeps(self, board: str) -> bool:
        return any(
            row.board == board and row.phase == Phase.SLEEPING and row.power == Power.OFF for row in self._rows()
        )

    # --- jobs ---

    def _job(self, name: str, board: str | None) -> JobSummary:
        """Submit a small job, show its log, and return how it passed."""
        spec: dict[str, object] = {
            "name": name,
            "steps": [{"name": "say", "run": f"echo {MARK}: hello"}],
        }
        if self._has_shell:
            spec["steps"] = [
                {"name": "say", "run": f"echo '{MARK}: hello from' $(hostname)"},
                {"name": "look", "run": "uname -a; cat /proc/uptime"},
            ]
        if board is not None:
            spec["board"] = board
        # JSON is YAML.
        data = ask_broker(self._target, "submit", {"yaml": json.dumps(spec)}, timeout_s=SUBMIT_TIMEOUT_S, patient=True)
        if not isinstance(data.get("job"), str):
            raise unreadable("answer to 'submit'", data)
        job = check_id("job", data["job"])
        self._report.say(f"   job {job} ({name}) submitted")
        text, summary = self._follow(job)
        if summary.state is not JobState.PASSED:
            why = shown(summary.reason or "no reason")
            raise CliError(Exit.FAILED, f"demo: job {job} ended as {summary.state}: {why}")
        if MARK not in text:
            raise CliError(Exit.FAILED, f"demo: job {job} passed, and its log lacks '{MARK}'")
        self._report.say(f"   job {job} passed on {summary.board}")
        return summary

    def _follow(self, job: str) -> tuple[str, JobSummary]:
        text, following = "", 0
        while True:
            if self._late():
                raise CliError(
                    Exit.FAILED, f"demo: job {job} did not end within {self._deadline_s:g} s ({self._picture()})"
                )
            pieces, following, ended = log_pieces(self._target, job, following, patient=True)
            for piece in pieces:
                text += piece.text
                self._report.log(shown_log(piece.text))
            if ended and not pieces:
                return text, job_summary(self._target, job, patient=True)
            self._look()
