"""What boards say about work, judged by the token: the current holder is believed, an older one is told so."""

from dataclasses import dataclass
from typing import assert_never

from broker.farm_view import FarmView
from broker.happenings import Moment, Note, SaveArtifact, SaveLog, SendAck, SendStop
from broker.ledger import Held, Ledger
from wire.payloads import ErrorInfo, WorkAccept, WorkArtifact, WorkAsk, WorkLog, WorkOutcome, WorkReport
from wire.phases import ErrorKind, JobState

# Per attempt. A job that prints without end must not fill the broker's disk.
MAX_LOG_LETTERS = 16 * 1024 * 1024
# A board that asks while its offer is on the way gets it again, but not more often than this.
REOFFER_AFTER_S = 1.0


@dataclass(slots=True)
class WorkReports:
    ledger: Ledger
    farm: FarmView

    def take(self, board: str, report: WorkReport, now: Moment) -> bool:
        """Take in a report; whether boards or jobs may have become free by it."""
        if isinstance(report, WorkAsk):
            self._asked(board, now)
            return True
        held = self.ledger.current(board, report.job, report.token)
        if held is None or held.job.state is JobState.WAKING:
            self._stale(board, report)
            return False
        match report:
            case WorkAccept():
                self.ledger.accept(held, report.boot_id, now)
                return False
            case WorkLog():
                self._log(held, report, now)
                return False
            case WorkArtifact():
                self.ledger.accept(held, self.farm.board(board).boot_id, now)
                if (wanted := held.job.spec.artifacts) is not None:
                    room = wanted.wish().max_bytes
                    self.ledger.out.append(SaveArtifact(held.job.number, held.job.attempt, report, room))
                return False
            case WorkOutcome():
                self.ledger.outcome(held, report, now)
                self.ledger.out.append(SendAck(board, report.job, report.token, ok=True))
                return True
            case _:
                assert_never(report)

    def check_leftover(self, board: str) -> None:
        """A board that shows a job it has no lease for any more is told to stop; or, where its outcome is stored and
        only the acknowledgement was lost, that it is done."""
        work = self.farm.board(board).work
        held = self.ledger.held.get(board)
        last = self.ledger.last_holder.get(board)
        if work is None or last is None or last[0] != work or (held is not None and held.job.id == work):
            return
        if self.ledger.outcome_is_stored(board, work, last[1]):
            self.ledger.out.append(SendAck(board, work, last[1], ok=True))
        else:
            self.ledger.out.append(SendStop(board, work, last[1], "the lease of this job has ended"))

    def _asked(self, board: str, now: Moment) -> None:
        held = self.ledger.held.get(board)
        if held is None or held.job.state is not JobState.OFFERED:
            return
        last_offer = held.deadline - self.ledger.policy.offer_timeout_s
        if now.mono - last_offer >= REOFFER_AFTER_S and held.offers < self.ledger.policy.max_offers:
            self.ledger.offer(held, now)

    def _log(self, held: Held, report: WorkLog, now: Moment) -> None:
        self.ledger.accept(held, self.farm.board(held.board).boot_id, now)
        held.watch.feed(report.seq, report.step, report.text)
        before = held.log_letters
        held.log_letters += len(report.text)
        if held.log_letters <= MAX_LOG_LETTERS:
            self.ledger.out.append(SaveLog(held.job.number, held.job.attempt, report))
        elif before <= MAX_LOG_LETTERS:
            cut = f"\n[boardhand: more than {MAX_LOG_LETTERS} letters of output; the rest was dropped]\n"
            self.ledger.out.append(SaveLog(held.job.number, held.job.attempt, report.model_copy(update={"text": cut})))
            self.ledger.out.append(Note(f"{held.job.id} on {held.board} prints more than is kept"))

    def _stale(self, board: str, report: WorkAccept | WorkLog | WorkArtifact | WorkOutcome) -> None:
        """Not, or no longer, the holder."""
        told = f"token {report.token} of {report.job} on {board} is not the lease that holds now"
        if not isinstance(report, WorkOutcome):
            self.ledger.out.append(SendStop(board, report.job, report.token, told))
        elif self.ledger.outcome_is_stored(board, report.job, report.token):
            self.ledger.out.append(SendAck(board, report.job, report.token, ok=True))
        else:
            error = ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message=told, key="token")
            self.ledger.out.append(SendAck(board, report.job, report.token, ok=False, error=error))
