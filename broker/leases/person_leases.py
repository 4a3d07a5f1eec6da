"""Leases of people, from asking to giving back. Pure: no I/O, no clock.

A person waits in the same queue as the jobs and takes the board's next token as they do. What is different: nobody
offers the board anything, and the lease ends by its person's word or at its time. Times are counted on the monotonic
clock; `expires`, for people and agents, is put right when the wall's clock jumps.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from broker.farm_view import FarmView
from broker.happenings import ClearLease, Moment, PutLease, Reply, SaveToken
from broker.leases.happenings import ExtendLease, HandOver, LeaseOrder, Release, Reserve
from broker.leases.lease import LeaseEvent, LeaseRules, PersonLease, lease_number
from broker.leases.person_power import PersonPower, board_of, reachable, saved
from broker.ledger import Ledger
from broker.matching.board_pool import BoardPool
from broker.matching.dispatch import Dispatch
from broker.matching.standing import Standing
from broker.sleep.idle_policy import IdlePolicy
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind, LeaseKind, LeaseStage

# On MQTT the lease lasts so much longer: an agent whose clock is a little ahead must not open the board to everybody
# before we have taken it back.
_TOLD_LONGER = timedelta(seconds=30)
# The wall's clock is put right in steps of less all the time.
WALL_JUMP_S = 5.0
# Of a lease that is shorter than four warnings.
WARN_SHARE = 4.0
MOST_TRIES = 3


@dataclass(slots=True)
class PersonLeases:
    """Whatever it does stands in the ledger's `out`. The scheduler calls it; `rules` are the farm's."""

    ledger: Ledger
    farm: FarmView
    dispatch: Dispatch
    idle: IdlePolicy
    rules: LeaseRules
    power: PersonPower = field(init=False)
    _asking: list[tuple[Reserve, PersonLease]] = field(default_factory=list)
    """Asked for in this batch, and not answered yet."""
    _named: dict[str, dict[int, None]] = field(default_factory=dict)
    """Who waits for this one board, in their order."""

    def __post_init__(self) -> None:
        self.power = PersonPower(self.ledger, self.farm, self.dispatch, self.idle)

    # --- queries ---------------------------------------------------------------------------------------------

    def line(self, lease: str) -> list[tuple[PersonLease, str | None]]:
        """As `lines`, of the one with this id."""
        number = lease_number(lease)
        if number is None:
            return []
        waiting = self.ledger.asked.get(number)
        if waiting is not None:
            return [(waiting, self.dispatch.reason(number))]
        return [(one, None) for one in self.ledger.people.values() if one.number == number]

    def lines(self) -> list[tuple[PersonLease, str | None]]:
        """Every lease and, for one that waits, why: boards that are held first, then the queue by age."""
        held = [(lease, None) for _, lease in sorted(self.ledger.people.items())]
        waiting = (self.ledger.asked[number] for number in sorted(self.ledger.asked))
        return [*held, *((one, self.dispatch.reason(one.number)) for one in waiting)]

    # --- orders ----------------------------------------------------------------------------------------------

    def order(self, asked: LeaseOrder, now: Moment) -> None:
        """Carry an order out, and answer it at once or after the next `answer`."""
        match asked:
            case Reserve():
                self._reserve(asked, now)
            case ExtendLease():
                if (lease := self._find(asked.tag, asked.lease, asked.holder)) is not None:
                    self._extend(asked, lease, now)
            case Release():
                if (lease := self._find(asked.tag, asked.lease, asked.holder, waiting=True)) is not None:
                    self._release(asked, lease, now)
            case HandOver():
                if (lease := self._find(asked.tag, asked.lease, asked.holder)) is not None:
                    self._hand_over(asked, lease, now)

    def _reserve(self, asked: Reserve, now: Moment) -> None:
        kind, why = ErrorKind.BUSY, None
        if asked.for_s > self.rules.longest_s:
            kind = ErrorKind.BAD_REQUEST
            why = f"a lease lasts at most {self.rules.longest_s:g} s here, and {asked.for_s:g} s were asked for"
        elif len(self.ledger.asked) >= self.rules.most_waiting:
            why = f"{self.rules.most_waiting} people wait already: try later"
        if why is not None:
            self._refuse(asked.tag, kind, why, "for_s" if kind is ErrorKind.BAD_REQUEST else "board")
            return
        number = self.ledger.next_number
        self.ledger.next_number += 1
        off = self.rules.off_when_done if asked.off is None else asked.off
        lease = PersonLease(
            number, asked.holder, asked.needs, asked.for_s, now.wall, asked.comment, wake=asked.wake, off=off
        )
        self._queue(lease)
        self._asking.append((asked, lease))

    def _queue(self, lease: PersonLease) -> None:
        self.ledger.asked[lease.number] = lease
        self.dispatch.wait(lease.number, lease.needs, lease.holder)
        if lease.needs.board is not None:
            self._named.setdefault(lease.needs.board, {})[lease.number] = None

    def _unqueue(self, lease: PersonLease) -> None:
        self.ledger.asked.pop(lease.number, None)
        self.dispatch.waiting.remove(lease.number)
        if lease.needs.board is not None:
            named = self._named.get(lease.needs.board, {})
            named.pop(lease.number, None)
            if not named:
                self._named.pop(lease.needs.board, None)

    def disconnected(self) -> None:
        """Whoever asked and was not answered yet asks again: what nobody hears of must not be given."""
        asking, self._asking = self._asking, []
        for asked, lease in asking:
            self._unqueue(lease)
            self._refuse(asked.tag, ErrorKind.BUSY, "the broker lost the MQTT server: try again", "board")

    def answer(self) -> None:
        """Answer those who asked, after boards were given out."""
        asking, self._asking = self._asking, []
        for asked, lease in asking:
            board = lease.needs.board
            if lease.held:
                self._reply(asked.tag, lease)
            elif board is not None and not self.farm.knows(board):
                self._unqueue(lease)
                self._refuse(asked.tag, ErrorKind.UNKNOWN_BOARD, f"board {board} is not known", "board")
            elif board is not None and board in self.ledger.retired:
                self._unqueue(lease)
                self._refuse(asked.tag, ErrorKind.NOT_ALLOWED, f"board {board} is retired", "board")
            elif asked.wait:
                self._save(lease)
                waits = self.dispatch.reason(lease.number) or "waits for its turn"
                self.ledger.out.append(Reply(asked.tag, {"lease": lease.id, "waits": waits}))
            else:
                why = self._why_not(lease)
                self._unqueue(lease)
                self._refuse(asked.tag, ErrorKind.NOT_ALLOWED, why, "board")

    def _why_not(self, lease: PersonLease) -> str:
        board = lease.needs.board
        if board is not None and (found := self.ledger.people.get(board)) is not None:
            until = found.expires.isoformat(timespec="minutes") if found.expires is not None else "?"
            comment = f" ({found.comment})" if found.comment else ""
            return f"board {board}: held by {found.holder} until {until}{comment}"
        if board is not None and (held := self.ledger.held.get(board)) is not None:
            return f"board {board}: {held.job.id} works on it"
        return self.dispatch.reason(lease.number) or "no board is free"

    def _find(self, tag: str, name: str, holder: str | None, *, waiting: bool = False) -> PersonLease | None:
        """The lease with this id or on this board, or None, which is answered."""
        number = lease_number(name)
        lease = self.ledger.people.get(name)
        if number is not None:
            held = (one for one in self.ledger.people.values() if one.number == number)
            lease = self.ledger.asked.get(number) or next(held, lease)
        if lease is None and (held_by := self.ledger.held.get(name)) is not None:
            told = f"board {name}: {held_by.job.id} has it; cancel that job to end its lease"
            self._refuse(tag, ErrorKind.NOT_ALLOWED, told, "lease")
        elif lease is None:
            self._refuse(tag, ErrorKind.NOT_FOUND, f"{name} is no lease, and nobody has reserved such a board", "lease")
        elif holder is not None and holder != lease.holder:
            self._refuse(tag, ErrorKind.NOT_ALLOWED, f"{name} is reserved by {lease.holder}, not by {holder}", "lease")
        elif not waiting and not lease.held:
            self._refuse(tag, ErrorKind.NOT_ALLOWED, f"{lease.id} still waits for a board", "lease")
        else:
            return lease
        return None

    def _extend(self, asked: ExtendLease, lease: PersonLease, now: Moment) -> None:
        if asked.for_s > self.rules.longest_s:
            told = f"a lease lasts at most {self.rules.longest_s:g} s from now here"
            self._refuse(asked.tag, ErrorKind.BAD_REQUEST, told, "for_s")
            return
        # Never shorter: "two hours more" of somebody who has three must not take one away.
        if now.mono + asked.for_s > lease.ends:
            lease.lasts_s = asked.for_s
            self._until(lease, now, asked.for_s)
            lease.step(LeaseEvent.EXTEND)
            self._put(lease)
            self._save(lease)
        self._reply(asked.tag, lease)

    def _release(self, asked: Release, lease: PersonLease, now: Moment) -> None:
        data: dict[str, object] = {"lease": lease.id, "board": lease.board}
        self._end(lease, "given back" if asked.holder is not None else "taken back", now)
        self.ledger.out.append(Reply(asked.tag, {key: value for key, value in data.items() if value is not None}))

    def _hand_over(self, asked: HandOver, lease: PersonLease, now: Moment) -> None:
        if asked.to == lease.holder:
            self._refuse(asked.tag, ErrorKind.BAD_REQUEST, f"{lease.id} is {asked.to}'s already", "to")
            return
        board = board_of(lease)
        self.dispatch.gave_back(lease.number, now)
        lease.holder = asked.to
        # The token that the former holder knows is good for nothing from now on.
        lease.token = self._next_token(board)
        self.dispatch.took(lease.number, lease.holder, now)
        self._put(lease)
        self._save(lease)
        self._reply(asked.tag, lease)

    # --- boards ----------------------------------------------------------------------------------------------

    def give(self, number: int, board: str, standing: Standing, now: Moment) -> bool:
        """The queue gives the board to this number. False when that is no person."""
        lease = self.ledger.asked.get(number)
        if lease is None:
            return False
        self._take(lease, board, standing, now)
        return True

    def _take(self, lease: PersonLease, board: str, standing: Standing, now: Moment) -> None:
        self._unqueue(lease)
        self.idle.taken(board)
        self.power.forget_closing(board)
        lease.step(LeaseEvent.GIVE)
        lease.board, lease.token, lease.since = board, self._next_token(board), now.wall
        lease.woken = not (lease.wake and standing is Standing.ASLEEP)
        self._until(lease, now, lease.lasts_s)
        self.ledger.people[board] = lease
        self.dispatch.took(lease.number, lease.holder, now)
        self._put(lease)
        self._save(lease)
        if not lease.woken:
            self.power.switch_on(lease, now)

    def _next_token(self, board: str) -> int:
        token = self.ledger.tokens.get(board, 0) + 1
        self.ledger.tokens[board] = token
        self.ledger.out.append(SaveToken(board, token))
        return token

    def _until(self, lease: PersonLease, now: Moment, lasts_s: float) -> None:
        lease.ends, lease.expires = now.mono + lasts_s, now.after(lasts_s)

    def _put(self, lease: PersonLease) -> None:
        if lease.board is None or lease.token is None or lease.expires is None:
            return
        self.ledger.out.append(
            PutLease(
                lease.board,
                lease.token,
                lease.holder,
                lease.expires + _TOLD_LONGER,
                kind=LeaseKind.PERSON,
                since=lease.since,
                comment=lease.comment or None,
                ends=lease.expires,
            )
        )

    def _save(self, lease: PersonLease) -> None:
        self.ledger.out += saved(lease)

    def _end(self, lease: PersonLease, why: str, now: Moment) -> None:
        if not lease.held:
            self._unqueue(lease)
            lease.step(LeaseEvent.END)
            lease.reason, lease.ended = why, now.wall
            self._save(lease)
            return
        board = board_of(lease)
        del self.ledger.people[board]
        self.dispatch.gave_back(lease.number, now)
        lease.step(LeaseEvent.END)
        lease.reason, lease.ended, lease.closing = why, now.wall, lease.off
        self.ledger.out.append(ClearLease(board))
        if lease.closing:
            lease.tries, lease.again = 0, now.mono
            self.ledger.closing[board] = lease
            self.power.close(lease, now)
        self._save(lease)

    # --- time ------------------------------------------------------------------------------------------------

    def settle(self, now: Moment) -> None:
        """The picture of the farm is whole: end what ran out while we were gone, say the rest again."""
        for lease in list(self.ledger.people.values()):
            if now.mono >= lease.ends:
                self._end(lease, "its time was over", now)
            else:
                self._put(lease)

    def look(self, now: Moment) -> None:
        """Time has passed."""
        for lease in list(self.ledger.people.values()):
            if now.mono >= lease.ends:
                self._end(lease, "its time was over", now)
                continue
            self._keep_time(lease, now)
            if not lease.woken:
                self.power.watch_waking(lease, now)
        for lease in list(self.ledger.closing.values()):
            self.power.close(lease, now)

    def give_out_of_service(self, pool: BoardPool, now: Moment, *, ticked: bool) -> None:
        """A board that no job can have may be had by a person who names it: somebody has to mend it."""
        if not (ticked or self._asking):
            return
        for board in list(self._named):
            entry = pool.entries.get(board)
            if entry is None or entry.standing is not Standing.OUT or self._in_hand(board):
                continue
            picture = self.farm.board(board)
            if not reachable(picture):
                continue
            waiting = [self.ledger.asked[number] for number in sorted(self._named[board])]
            fitting = next((one for one in waiting if all(w.met_by(picture.labels) for w in one.needs.wants)), None)
            if fitting is None:
                continue
            wakes = fitting.wake and picture.asleep
            if wakes and self.dispatch.room.refusal(picture.labels, now.mono) is not None:
                continue
            self._take(fitting, board, Standing.ASLEEP if wakes else Standing.OUT, now)
            if wakes:
                self.dispatch.room.woke(board, picture.labels, now.mono)

    def _in_hand(self, board: str) -> bool:
        ledger = self.ledger
        if board in ledger.people or board in ledger.held or board in ledger.other_boots or board in ledger.retired:
            return True
        return self.idle.pending(board) is not None

    def _keep_time(self, lease: PersonLease, now: Moment) -> None:
        left_s = lease.ends - now.mono
        wall = now.after(left_s)
        if lease.expires is None or abs((wall - lease.expires).total_seconds()) > WALL_JUMP_S:
            lease.expires = wall
            self._put(lease)
            self._save(lease)
        if lease.stage is LeaseStage.HELD and left_s <= min(self.rules.warn_s, lease.lasts_s / WARN_SHARE):
            lease.step(LeaseEvent.WARN)
            self._save(lease)

    # --- after a restart -------------------------------------------------------------------------------------

    def restore(self, leases: Iterable[PersonLease], now: Moment) -> None:
        """Take up what our predecessor committed."""
        for lease in leases:
            if lease.stage is LeaseStage.ENDED:
                if lease.board is not None and lease.closing:
                    lease.again = now.mono
                    self.ledger.closing[lease.board] = lease
            elif lease.held and lease.board is not None and lease.expires is not None:
                # A clock that was put back meanwhile must not make it longer than it ever was.
                left_s = min((lease.expires - now.wall).total_seconds(), lease.lasts_s)
                lease.ends = now.mono + left_s
                self.ledger.people[lease.board] = lease
                self.dispatch.took(lease.number, lease.holder, now)
            else:
                self._queue(lease)

    # --- words -----------------------------------------------------------------------------------------------

    def _reply(self, tag: str, lease: PersonLease) -> None:
        expires = lease.expires.isoformat() if lease.expires is not None else None
        data = {"lease": lease.id, "board": lease.board, "token": lease.token, "expires": expires}
        self.ledger.out.append(Reply(tag, {**data, "holder": lease.holder}))

    def _refuse(self, tag: str, kind: ErrorKind, message: str, key: str) -> None:
        self.ledger.out.append(Reply(tag, {}, ErrorInfo(kind=kind, message=message[:4096], key=f"data.{key}")))
