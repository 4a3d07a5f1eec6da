"""`hubs prove HUB:PORT`: switch one port off and on once, and say what really happened.

That the device on the port vanishes proves little by itself: the kernel lets go of it before it tells the hub. What
counts is that the hub then says "off" and that the device stays away while it is off; a hub that does not switch has
it enumerated again at once. Where the hub is switched past the kernel the device stays listed, and what counts is that
it is enumerated anew when the power is back. Whether VBUS fell no host can see, and that is said.
"""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from types import FrameType

from agent.power.drivers.usb_hub_ports import HubSwitch, HubView, with_peer
from agent.power.errors import ConfigurationError, PowerError, UnreachableError
from agent.power.kinds.usb_hub import HubMethod
from cli.exits import CliError, Exit, usage
from cli.hubs import Bench, child_text
from cli.plain_text import shown
from udev.usb_hub_lookup import HubLookupError, find_hub, split_port
from udev.usb_hub_truth import PortTruth, Source, Truth, proof_key
from udev.usb_hubs import HubPort, machine_model, plugged_in
from wire.phases import Power

Plugged = dict[str, tuple[int, tuple[str, ...]]]

POLL_S = 0.05


class Verdict(StrEnum):
    """What the trial showed."""

    SWITCHES = "switches"
    LIES = "lies"
    GANGED = "ganged"
    UNPROVED = "unproved"
    """Nothing was plugged in that could vanish."""


_PROVES = {Verdict.SWITCHES: Truth.PER_PORT, Verdict.LIES: Truth.LIES, Verdict.GANGED: Truth.GANGED}


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. A device that a hub did not switch is back 0.3 s to 1 s later; one that was switched on takes up to
    some seconds to be enumerated."""

    off_s: float = 2.0
    back_s: float = 10.0


@dataclass
class Trial:
    """What was seen."""

    view: HubView
    port: HubPort
    known: PortTruth
    below: Plugged
    others: Plugged
    past_kernel: bool = False
    vanished: dict[str, float] = field(default_factory=dict)
    """Device or tty -> seconds after the command."""
    stayed: list[str] = field(default_factory=list)
    """Devices of the port that never lost their connection."""
    returned: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    said_off: Power = Power.UNKNOWN
    said_on: Power = Power.UNKNOWN
    off_took_s: float = 0.0
    on_took_s: float = 0.0

    @property
    def verdict(self) -> Verdict:
        if self.overruled:
            return Verdict.GANGED if self.known.word.whole_hub else Verdict.LIES
        if self.said_off is not Power.OFF or any(name in self.below for name in self.stayed):
            return Verdict.LIES
        if any(name in self.vanished for name in self.others):
            return Verdict.GANGED
        return Verdict.SWITCHES if self.below else Verdict.UNPROVED

    @property
    def overruled(self) -> bool:
        """Whether it is known how the port is built, so that what a host sees of it proves nothing."""
        built = self.known.source in {Source.TOPOLOGY, Source.MODEL}
        return built and (self.known.word.whole_hub or self.known.word is Truth.LIES)

    @property
    def why(self) -> str:
        """The verdict as a clause."""
        if self.overruled:
            return f"{self.known.why}; nothing that a host sees can prove otherwise"
        if self.said_off is not Power.OFF:
            return f"the command was accepted, and the hub says that the port is {self.said_off}"
        others = [name for name in self.others if name in self.vanished]
        went = "was enumerated anew with the power" if self.past_kernel else "vanished and stayed away"
        said = {
            Verdict.LIES: f"{', '.join(self.stayed)} stays connected",
            Verdict.GANGED: f"devices of other ports vanished too: {', '.join(others)}",
            Verdict.UNPROVED: "nothing was plugged in that could vanish",
            Verdict.SWITCHES: f"what was plugged in {went}",
        }
        return f"the hub says off, and {said[self.verdict]}"


def prove(words: str, bench: Bench, *, yes: bool, force: bool, as_json: bool, patience: Patience = Patience()) -> int:
    """Carry out one trial and report it; exit 0 only if the port really switches. Power is back at the end, also after
    Ctrl-C.

    Raises:
        CliError: there is no such port, it is not allowed, or the hub cannot be used.
    """
    switch, view, port = _find(words, bench)
    truth = switch.truth(view, port, bench.proved())
    if truth.word in {Truth.CHAINED, Truth.ROOT_HUB} and not force:
        raise CliError(
            Exit.NOT_ALLOWED, f"{words} is {truth.word.meaning} ({truth.why})", "add --force if you are sure"
        )
    if not yes:
        _ask(words, switch, view, port)
    below, others = _split(plugged_in(bench.sysfs), view, port)
    trial = Trial(view, port, truth, below, others, past_kernel=switch.method(port) is HubMethod.USB)
    try:
        _run(trial, switch, bench, patience)
    except PowerError as problem:
        raise _cli_error(problem) from None
    word = _PROVES.get(trial.verdict)
    if word is not None and not trial.overruled:
        _keep(bench, proof_key(view.hub, port.number), word)
    print(json.dumps(_document(trial)) if as_json else "\n".join(_lines(trial)))
    return Exit.OK if trial.verdict is Verdict.SWITCHES else Exit.FAILED


def _find(words: str, bench: Bench) -> tuple[HubSwitch, HubView, HubPort]:
    try:
        name, number = split_port(words)
        hub = find_hub(bench.hubs(), name, machine=machine_model(bench.sysfs), kernel_names=True)
    except ValueError as problem:
        raise usage(str(problem), "see 'boardhand hubs'") from None
    except HubLookupError as problem:
        raise usage(problem.problem, problem.do) from None
    port = hub.port(int(number))
    if port is None:
        numbers = ", ".join(str(port.number) for port in hub.ports) or "none"
        raise usage(f"hub {hub.id} has no port {number}", f"it has {numbers}")
    switch = bench.switch(hub)
    try:
        return switch, switch.look(), port
    except PowerError as problem:
        raise _cli_error(problem) from None


def _ask(words: str, switch: HubSwitch, view: HubView, port: HubPort) -> None:
    if not sys.stdin.isatty():
        raise usage(f"nobody is here to say that {words} may be switched off", "add --yes")
    children = switch.children(view, str(port.number))
    for child in children:
        print(f"without power for a moment: {child_text(child, behind=True)}", file=sys.stderr)
    print(f"switch {words} off and on again? An agent that uses it is not asked. [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CliError(Exit.NOT_ALLOWED, "nothing was switched", "answer y, or add --yes")


def _split(plugged: Plugged, view: HubView, port: HubPort) -> tuple[Plugged, Plugged]:
    """What is below this socket, and what is below the other sockets of the same hub."""
    socket = {half.port.folder for half in with_peer(view.hub, port, view.pair)}
    below: Plugged = {}
    others: Plugged = {}
    for hub in [view.hub, *([view.pair.other] if view.pair is not None else [])]:
        for each in hub.ports:
            if each.child is None:
                continue
            mine = below if each.folder in socket else others
            behind = each.child.name + "."
            mine |= {name: seen for name, seen in plugged.items() if name == each.child.name or name.startswith(behind)}
    return below, others


def _run(trial: Trial, switch: HubSwitch, bench: Bench, patience: Patience) -> None:
    outlet = str(trial.port.number)
    with _interruptible():
        try:
            begun = time.monotonic()
            switch.set(outlet, on=False, trial=True)
            trial.off_took_s = time.monotonic() - begun
            trial.said_off = switch.get(outlet)
            _watch(patience.off_s, lambda: _note_vanished(trial, plugged_in(bench.sysfs), time.monotonic() - begun))
        finally:
            _restore(trial, switch, outlet)
        begun = time.monotonic()
        _watch(patience.back_s, lambda: _note_returned(trial, plugged_in(bench.sysfs), time.monotonic() - begun))
    trial.said_on = switch.get(outlet)
    trial.missing = [name for name in trial.vanished if name not in trial.returned]


def _restore(trial: Trial, switch: HubSwitch, outlet: str) -> None:
    with _undisturbed():
        begun = time.monotonic()
        try:
            switch.set(outlet, on=True, trial=True)
        except UnreachableError:
            switch.set(outlet, on=True, trial=True)  # once more: a board without power is worse than a second try
        trial.on_took_s = time.monotonic() - begun


def _watch(seconds: float, done: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(POLL_S)


def _note_vanished(trial: Trial, now: Plugged, after_s: float) -> bool:
    """Never done before the time is up: to stay away is what counts."""
    before = trial.below | trial.others
    for name, (number, ttys) in before.items():
        there = now.get(name)
        lost = [] if there is not None and there[0] == number else [name]
        lost += [tty for tty in ttys if there is None or tty not in there[1]]
        for each in lost:
            trial.vanished.setdefault(each, round(after_s, 2))
    if not trial.past_kernel:
        trial.stayed = [name for name in trial.below if name in now]
    return False


def _note_returned(trial: Trial, now: Plugged, after_s: float) -> bool:
    there = {*now, *(tty for _, ttys in now.values() for tty in ttys)}
    for name, (_, ttys) in (trial.below | trial.others).items():
        if name in now and len(now[name][1]) >= len(ttys):
            there.update(ttys)  # while somebody holds the old tty open, the new one gets another number
    for name in trial.vanished:
        if name in there:
            trial.returned.setdefault(name, round(after_s, 2))
    if trial.past_kernel:
        trial.stayed = [name for name, (number, _) in trial.below.items() if name in now and now[name][0] == number]
        for name in trial.below.keys() & now.keys() - set(trial.stayed):
            trial.returned.setdefault(name, round(after_s, 2))
        for name, (number, _) in trial.others.items():
            if name in now and now[name][0] != number:  # it had lost its power too, unseen by the kernel
                trial.vanished.setdefault(name, 0.0)
                trial.returned.setdefault(name, round(after_s, 2))
    return trial.vanished.keys() <= trial.returned.keys() and not (trial.past_kernel and trial.stayed)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the trial as Ctrl-C does: with the power back."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave the board without power."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep(bench: Bench, key: str, word: Truth) -> None:
    try:
        bench.keep_proof(key, word)
    except OSError as problem:
        print(f"boardhand: the proof is not kept: {problem}", file=sys.stderr)


def _cli_error(problem: PowerError) -> CliError:
    if isinstance(problem.__cause__, PermissionError):
        code = Exit.NOT_ALLOWED
    elif isinstance(problem, UnreachableError):
        code = Exit.NO_ANSWER
    else:
        code = Exit.USAGE if isinstance(problem, ConfigurationError) else Exit.FAILED
    return CliError(code, shown(problem.problem), problem.do)


def _lines(trial: Trial) -> list[str]:
    lines = [f"off: the hub says {trial.said_off} after {trial.off_took_s:.2f} s"]
    lines += [f"  {name} vanished after {after_s:.2f} s" for name, after_s in trial.vanished.items()]
    lines += [f"  {name} stays connected" for name in trial.stayed]
    lines += [f"on: the hub says {trial.said_on}; the command took {trial.on_took_s:.2f} s"]
    lines += [f"  {name} came back after {after_s:.2f} s" for name, after_s in trial.returned.items()]
    lines += [f"  {name} has not come back" for name in trial.missing]
    lines += [f"{trial.view.hub.id}:{trial.port.number} {trial.verdict}: {trial.why}"]
    if trial.verdict is Verdict.SWITCHES:
        lines.append("a host cannot see VBUS: look once whether the board's light went out")
    return lines


def _document(trial: Trial) -> dict[str, object]:
    return {
        "ok": trial.verdict is Verdict.SWITCHES,
        "id": f"{trial.view.hub.id}:{trial.port.number}",
        "hub": str(trial.view.hub.id),
        "port": trial.port.number,
        "verdict": trial.verdict,
        "why": trial.why,
        "known_before": trial.known.word,
        "said_off": trial.said_off,
        "said_on": trial.said_on,
        "off_took_s": round(trial.off_took_s, 3),
        "on_took_s": round(trial.on_took_s, 3),
        "vanished": [{"name": name, "after_s": after_s} for name, after_s in trial.vanished.items()],
        "stayed": trial.stayed,
        "returned": [{"name": name, "after_s": after_s} for name, after_s in trial.returned.items()],
        "missing": trial.missing,
    }
