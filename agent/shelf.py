"""The agent's picture of its boards: what is heard goes in, what must be said and done comes out.

No I/O and no clock: every call takes `Moment`, and returns `Effects`. Wall time is for people, monotonic time for
deadlines.
"""

from collections.abc import Callable, Iterable, Mapping

from agent.life import Action, LifeEvent, PhaseChange
from agent.life import Outcome as LifeOutcome
from agent.memory import BoardMemory
from agent.outbox import NewEvent
from agent.power_watch import FAILURES_IN_A_ROW, NEVER_BEGUN, Drift, OnChange
from agent.presence.observations import Sign
from agent.unit import BoardPlan, Effects, Moment, Unit, UnknownBoardError, error_details
from wire.payloads import Alert, BoardSelf, BoardState, ErrorInfo
from wire.phases import ErrorKind, EventType, Phase, Power, PowerAction, Presence, Purpose

__all__ = ["BoardPlan", "Effects", "Moment", "Shelf", "Unit", "UnknownBoardError"]

POWER_ALERT = "power"
UNREADABLE_ALERT = "unreadable"
BOOT_ALERT = "boot"
CONSOLE_ALERT = "console"


class Shelf:
    """All boards of one agent."""

    def __init__(
        self,
        agent: str,
        session: int,
        plans: Mapping[str, BoardPlan],
        moment: Moment,
        *,
        placed: Callable[[str], str | None] = lambda _board: None,
    ) -> None:
        """`placed` says in one clause where a board's boot is stuck, None where nothing is known of it."""
        self._placed = placed
        self._agent = agent
        self._session = session
        self._units = {name: Unit.planned(plan, moment.wall) for name, plan in plans.items()}

    @property
    def boards(self) -> Iterable[str]:
        return self._units.keys()

    def follow(self, plans: Mapping[str, BoardPlan], moment: Moment) -> list[str]:
        """Other boards, or other plans, from now on; returns the new boards, which are to be restored. One that is
        coming up keeps the deadline that it has."""
        for gone in self._units.keys() - plans.keys():
            del self._units[gone]
        for board, unit in self._units.items():
            unit.follow(plans[board])
        new = {name: Unit.planned(plan, moment.wall) for name, plan in plans.items() if name not in self._units}
        self._units.update(new)
        return [*new]

    def __contains__(self, board: str) -> bool:
        return board in self._units

    def unit(self, board: str) -> Unit:
        try:
            return self._units[board]
        except KeyError:
            raise UnknownBoardError(board) from None

    def state(self, board: str) -> BoardState:
        """The board as it is told to the world."""
        unit = self.unit(board)
        return BoardState(
            power=unit.power,
            target=unit.target,
            phase=unit.life.phase,
            reason=unit.life.reason,
            since=unit.since,
            agent=self._agent,
            session=self._session,
            seq=unit.seq,
        )

    def memory(self, board: str) -> BoardMemory:
        """The board as it is stored."""
        unit = self.unit(board)
        target = None if unit.target is None else unit.target.value
        return BoardMemory(unit.life.phase, unit.life.reason, unit.since, target, unit.boot_id)

    def restore(
        self, board: str, memory: BoardMemory | None, power: Power, moment: Moment, *, interrupted: bool = False
    ) -> Effects:
        """Begin a session: what was stored, corrected by what the hardware says now. Nothing is switched but where
        the board's settings want its power enforced. After an interrupted command, which nobody else has undone, the
        wish stands as it was.
        """
        unit = self.unit(board)
        unit.power = power
        effects = Effects(changed={board}, show=[(board, unit.life.phase)])
        if memory is not None and memory.phase is Phase.FAULT:
            # Its alerts are still retained at the server, and are to be cleared when it is well again.
            unit.alerts = set(_ADVICE)
        else:
            effects.alerts = [(board, name, None) for name in _ADVICE]
        if memory is None:
            effects.add(self._follow_power(board, unit, power, moment))
            return effects
        unit.life.phase = memory.phase
        unit.life.reason = memory.reason
        unit.since = memory.since
        unit.target = None if memory.target is None else Power(memory.target)
        unit.boot_id = memory.boot_id
        was_on = memory.phase.coming_up or memory.phase in {Phase.READY, Phase.BUSY}
        was_off = memory.phase in {Phase.OFF, Phase.SLEEPING}
        if memory.phase.coming_up:
            # How long it has been coming up is not known across a restart; it gets its whole time again.
            unit.life.boot_deadline = unit.life.deadline_from(moment.monotonic)
        if (power is Power.ON and was_off) or (power is Power.OFF and was_on):
            effects.add(self._follow_power(board, unit, power, moment))
        if not interrupted or unit.watch.on_change is OnChange.ENFORCE:
            effects.add(self._drifted(board, unit, memory.phase, moment))
        effects.show = [(board, unit.life.phase)]
        return effects

    # --- power -----------------------------------------------------------------------------------------------

    def power_read(self, board: str, power: Power, moment: Moment) -> Effects:
        """The read-back of a board's power."""
        unit = self.unit(board)
        if power is unit.power:
            return Effects()
        old, unit.power = unit.power, power
        phase = unit.life.phase
        effects = Effects(changed={board})
        effects.events.append(NewEvent(board, EventType.POWER, {"power": power.value, "was": old.value}))
        if not (old is Power.UNKNOWN and self._agrees(phase, power)):
            effects.add(self._follow_power(board, unit, power, moment))
        effects.add(self._drifted(board, unit, phase, moment))
        return effects

    def _drifted(self, board: str, unit: Unit, phase: Phase, moment: Moment) -> Effects:
        """What is to be done where the power is not what was last asked for, and nobody here is switching."""
        drift = unit.watch.compare(unit.power, unit.target, moment.monotonic)
        if drift is Drift.NONE or unit.target is None:
            return Effects()
        wanted = unit.target
        details: dict[str, object] = {"power": unit.power.value, "target": wanted.value, "unexpected": drift.value}
        effects = Effects(changed={board}, events=[NewEvent(board, EventType.POWER, details)])
        if drift is Drift.ENFORCE:
            purpose = Purpose.SLEEP if phase is Phase.SLEEPING and wanted is Power.OFF else Purpose.OPERATOR
            action = PowerAction.ON if wanted is Power.ON else PowerAction.OFF
            effects.enforce.append((board, action, purpose))
            return effects
        unit.target = unit.power
        if drift is Drift.GIVE_UP:
            what = (
                f"its power was changed to {unit.power.value} by somebody else {unit.watch.drifts} times, each time "
                f"after it was switched back to {wanted.value}; left as it is"
            )
            effects.add(self._raise(board, unit, POWER_ALERT, what, moment))
            effects.add(self._apply(board, unit, unit.life.on(LifeEvent.FAULT, moment.monotonic, what), moment))
        return effects

    def unreadable(self, board: str, error: ErrorInfo | None, moment: Moment) -> Effects:
        """The board's power could not be read for several rounds (`error`), or can be again (None).

        A board that says of itself that it is there goes on with its work; any other is put aside: nobody could
        wake it.
        """
        unit = self.unit(board)
        if error is None:
            return self._clear(board, unit, UNREADABLE_ALERT)
        effects = self._raise(board, unit, UNREADABLE_ALERT, error.message, moment)
        if unit.life.phase not in {Phase.READY, Phase.BUSY}:
            outcomes = unit.life.on(LifeEvent.FAULT, moment.monotonic, f"its power cannot be read: {error.message}")
            effects.add(self._apply(board, unit, outcomes, moment))
        return effects

    @staticmethod
    def _agrees(phase: Phase, power: Power) -> bool:
        """Whether a power that was unknown for a while came back as it was believed."""
        if power is Power.ON:
            return phase.coming_up or phase in {Phase.READY, Phase.BUSY}
        return power is Power.OFF and phase in {Phase.OFF, Phase.SLEEPING}

    def _follow_power(self, board: str, unit: Unit, power: Power, moment: Moment) -> Effects:
        effects = Effects()
        if power is Power.OFF:
            unit.boot_id = None
            effects.new_boot.append(board)
        if power is Power.ON:
            effects.add(self._clear(board, unit, CONSOLE_ALERT))
        outcomes = unit.life.follow_power(power, moment.monotonic, sleep=unit.sleeping_soon)
        effects.add(self._apply(board, unit, outcomes, moment))
        for sign in unit.take_kept(power):
            effects.add(self.sign(sign, moment))
        return effects

    def command_begun(self, board: str, action: PowerAction, purpose: Purpose) -> Effects:
        """A power command is about to be carried out."""
        unit = self.unit(board)
        unit.target_before = unit.target
        unit.target = Power.OFF if action is PowerAction.OFF else Power.ON
        unit.watch.switching += 1
        unit.sleeping_soon = action is PowerAction.OFF and purpose is Purpose.SLEEP
        return Effects(changed={board})

    def command_ended(
        self, board: str, action: PowerAction, power: Power, error: ErrorInfo | None, moment: Moment
    ) -> Effects:
        """A power command was carried out, or was not."""
        unit = self.unit(board)
        effects = self.power_read(board, power, moment)
        slept = unit.sleeping_soon
        unit.sleeping_soon = False
        failed = unit.watch.ended(error)
        if error is not None and error.kind in NEVER_BEGUN:
            unit.target = unit.target_before
            return effects
        if error is None:
            effects.add(self._clear(board, unit, POWER_ALERT))
            if action is PowerAction.OFF and power is Power.OFF:
                # It may have been off before: then no change of power has moved it.
                event = LifeEvent.SLEEP if slept else LifeEvent.POWER_OFF
                effects.add(self._apply(board, unit, unit.life.on(event, moment.monotonic), moment))
            elif action is PowerAction.ON and power is Power.ON and unit.life.phase in {Phase.FAULT, Phase.OFF}:
                effects.add(self._apply(board, unit, unit.life.on(LifeEvent.POWER_ON, moment.monotonic), moment))
            return effects
        effects.events.append(
            NewEvent(board, EventType.POWER, {"power": power.value, "action": action.value, **error_details(error)})
        )
        effects.add(self._raise(board, unit, POWER_ALERT, error.message, moment))
        if error.kind is ErrorKind.NOT_VERIFIED or failed >= FAILURES_IN_A_ROW:
            row = f"{failed} power commands in a row failed, the last: " if failed >= FAILURES_IN_A_ROW else ""
            outcomes = unit.life.on(LifeEvent.FAULT, moment.monotonic, row + error.message)
            effects.add(self._apply(board, unit, outcomes, moment))
        elif unit.watch.on_change is OnChange.ENFORCE and power is not unit.target:
            unit.watch.try_again(moment.monotonic)
        return effects

    def interrupted(self, board: str, what: str) -> Effects:
        """The journal says that a command was under way when the agent was stopped."""
        unit = self.unit(board)
        details: dict[str, object] = {"power": unit.power.value, "interrupted": what}
        return Effects(events=[NewEvent(board, EventType.POWER, details)], changed={board})

    # --- what is heard of the board --------------------------------------------------------------------------

    def heard(self, board: str, event: LifeEvent, details: dict[str, object], moment: Moment) -> Effects:
        """DHCP or TFTP of the board was seen."""
        unit = self.unit(board)
        if unit.power is Power.OFF:
            # Its last packets may still be on their way; a board that is off is not booting.
            return Effects()
        effects = Effects(events=[NewEvent(board, EventType.NETBOOT, details)])
        effects.add(self._apply(board, unit, unit.life.on(event, moment.monotonic), moment))
        return effects

    def on_console(
        self, board: str, event: LifeEvent | None, details: dict[str, object], moment: Moment, fault: str | None = None
    ) -> Effects:
        """The board's console showed a milestone. `fault` says what is wrong, if that is what it shows."""
        unit = self.unit(board)
        effects = Effects(events=[NewEvent(board, EventType.CONSOLE, details)])
        if unit.power is Power.OFF:
            # A port that hangs off another supply prints noise, or what was still under way.
            return effects
        if fault is not None:
            effects.add(self._raise(board, unit, CONSOLE_ALERT, fault, moment))
            effects.add(self._apply(board, unit, unit.life.on(LifeEvent.FAULT, moment.monotonic, fault), moment))
        elif event is not None:
            effects.add(self._apply(board, unit, unit.life.on(event, moment.monotonic), moment))
        return effects

    def sign(self, sign: Sign, moment: Moment) -> Effects:
        """A link, a neighbour or a USB device of the board's came or went. What was so when we began is no event."""
        unit = self.unit(sign.board)
        effects = Effects(events=[] if sign.first else [NewEvent(sign.board, EventType.PRESENCE, sign.details)])
        if unit.power is Power.OFF:
            unit.keep(sign)
            return effects  # a link is renegotiated as its board dies, and one for Wake-on-LAN stays up
        if sign.life is not None:
            effects.add(self._apply(sign.board, unit, unit.life.on(sign.life, moment.monotonic, sign.words), moment))
        if unit.life.phase.coming_up and unit.life.reason != sign.words:
            unit.life.reason = sign.words
            effects.changed.add(sign.board)
        return effects

    def registered(self, board: str, boot_id: str, details: dict[str, object]) -> Effects:
        """The board has proved that this boot is its own. It is ready when it says that it is online."""
        unit = self.unit(board)
        again = unit.boot_id == boot_id and unit.life.phase in {Phase.READY, Phase.BUSY}
        unit.boot_id = boot_id
        if again:
            return Effects(changed={board})
        unit.proved_anew = True
        return Effects(changed={board}, events=[NewEvent(board, EventType.REGISTERED, {"boot_id": boot_id, **details})])

    def refused(self, board: str, details: dict[str, object]) -> Effects:
        """Somebody said to be this board and could not prove it. The board itself stays as it is."""
        return Effects(events=[NewEvent(board, EventType.REGISTRATION_REFUSED, details)])

    def said(self, board: str, words: BoardSelf, moment: Moment) -> Effects:
        """The board's own word, or its will. Only the boot that proved itself is listened to."""
        unit = self.unit(board)
        if words.boot_id != unit.boot_id or unit.power is Power.OFF:
            return Effects()
        now = moment.monotonic
        if words.state is Presence.OFFLINE:
            if unit.life.phase not in {Phase.READY, Phase.BUSY}:
                return Effects()
            effects = Effects(events=[NewEvent(board, EventType.PRESENCE, {"state": "offline"})])
            outcomes = unit.life.on(LifeEvent.GONE, now, "the board went silent while its power is on")
            effects.add(self._apply(board, unit, outcomes, moment))
            return effects
        effects = Effects()
        if unit.life.phase.coming_up or (unit.life.phase is Phase.FAULT and unit.proved_anew):
            effects.events.append(NewEvent(board, EventType.PRESENCE, {"state": "online"}))
            effects.add(self._apply(board, unit, unit.life.on(LifeEvent.ONLINE, now), moment))
            effects.add(self._clear(board, unit, BOOT_ALERT))
            effects.add(self._clear(board, unit, CONSOLE_ALERT))
        unit.proved_anew = False
        event = LifeEvent.WORK_ENDED if words.work is None else LifeEvent.WORK_BEGUN
        effects.add(self._apply(board, unit, unit.life.on(event, now, words.work), moment))
        return effects

    def tick(self, moment: Moment) -> Effects:
        """Deadlines: boards that did not come up in their time."""
        effects = Effects()
        for board, unit in self._units.items():
            if unit.watch.retry_due(moment.monotonic):
                effects.add(self._drifted(board, unit, unit.life.phase, moment))
            if not unit.life.boot_overdue(moment.monotonic):
                continue
            stuck = self._placed(board) or f"last seen: {unit.life.phase.value}"
            waited = f"not registered {unit.life.boot_timeout_s or 0:g} s after power on; {stuck}"
            outcomes = unit.life.on(LifeEvent.BOOT_TIMEOUT, moment.monotonic, waited)
            if Action.CYCLE_FOR_BOOT in outcomes:
                effects.events.append(NewEvent(board, EventType.ALERT, {"name": BOOT_ALERT, "what": waited}))
            else:
                effects.add(self._raise(board, unit, BOOT_ALERT, waited, moment))
            effects.add(self._apply(board, unit, outcomes, moment))
        return effects

    def next_deadline(self) -> float | None:
        """The monotonic time at which `tick` is wanted next."""
        units = self._units.values()
        deadlines = [at for unit in units for at in (unit.life.boot_deadline, unit.watch.retry_at) if at is not None]
        return min(deadlines, default=None)

    def maintenance(self, board: str, *, on: bool, moment: Moment, why: str = "taken out by a person") -> Effects:
        """A person takes the board out of work, or gives it back; or we do, for `why`."""
        unit = self.unit(board)
        if on:
            outcomes = unit.life.on(LifeEvent.MAINTENANCE_ON, moment.monotonic, why)
            return self._apply(board, unit, outcomes, moment)
        effects = self._apply(board, unit, unit.life.on(LifeEvent.MAINTENANCE_OFF, moment.monotonic), moment)
        if unit.power is Power.ON:
            effects.add(self._apply(board, unit, unit.life.on(LifeEvent.POWER_ON, moment.monotonic), moment))
        return effects

    # --- common to all ---------------------------------------------------------------------------------------

    def _apply(self, board: str, unit: Unit, outcomes: list[LifeOutcome], moment: Moment) -> Effects:
        effects = Effects()
        for outcome in outcomes:
            if isinstance(outcome, PhaseChange):
                unit.since = moment.wall
                effects.changed.add(board)
                details: dict[str, object] = {"phase": outcome.new.value, "was": outcome.old.value}
                if outcome.reason:
                    details["reason"] = outcome.reason
                effects.events.append(NewEvent(board, EventType.PHASE, details))
                effects.show.append((board, outcome.new))
            else:
                effects.cycle.append(board)
        return effects

    def _raise(self, board: str, unit: Unit, name: str, what: str, moment: Moment) -> Effects:
        unit.alerts.add(name)
        alert = Alert(what=what, since=moment.wall, do=_ADVICE[name])
        return Effects(
            alerts=[(board, name, alert)], events=[NewEvent(board, EventType.ALERT, {"name": name, "what": what})]
        )

    def _clear(self, board: str, unit: Unit, name: str) -> Effects:
        if name not in unit.alerts:
            return Effects()
        unit.alerts.discard(name)
        return Effects(
            alerts=[(board, name, None)], events=[NewEvent(board, EventType.ALERT, {"name": name, "cleared": True})]
        )


_ADVICE = {
    POWER_ALERT: "look at the controller and the outlet named above, then switch the board again",
    UNREADABLE_ALERT: "look at the controller named above: its power, its cable or network, its credentials",
    BOOT_ALERT: "look at the board's console and network cable, then cycle its power",
    CONSOLE_ALERT: "read what it printed: boardhand console BOARD --boot 0; then cycle its power",
}
