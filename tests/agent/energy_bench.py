"""A recorder of energy whose time and meters are the test's."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from agent.energy import Condition
from agent.energy_recorder import EnergyRecorder, Reading
from agent.energy_report import Nameplate
from agent.energy_store import EnergyStore
from agent.unit import Moment
from daemon.store import Store
from wire.payloads import Telemetry
from wire.phases import Phase, Power

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
READY = Condition(Power.ON, Phase.READY)
ASLEEP = Condition(Power.OFF, Phase.SLEEPING)
EVERY_S = 10.0


class Bench:
    """A recorder whose time and meters are the test's."""

    def __init__(self, store: Store, boards: Mapping[str, Nameplate] | None = None) -> None:
        self.store = store
        self.now_s = 0.0
        self.begun = NOON
        self.readings: dict[str, Reading] = {}
        self.conditions: dict[str, Condition] = {}
        self.said: list[tuple[str, Telemetry]] = []
        self.recorder = self.make(boards or {"b": Nameplate()})

    def make(self, boards: Mapping[str, Nameplate]) -> EnergyRecorder:
        return EnergyRecorder(
            EnergyStore(self.store),
            boards,
            every_s=EVERY_S,
            read=self.read,
            condition=lambda board: self.conditions.get(board, READY),
            publish=lambda board, told: self.said.append((board, told)),
            moment=self.moment,
        )

    def moment(self) -> Moment:
        return Moment(5000 + self.now_s, self.begun + timedelta(seconds=self.now_s))

    async def read(self) -> Mapping[str, Reading]:
        return dict(self.readings)

    async def pass_s(self, seconds: float, step_s: float = EVERY_S) -> None:
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            await self.recorder.tick()

    async def board(self, board: str = "b", since: datetime = NOON - timedelta(days=1), by: str | None = None):
        report = await self.recorder.report(since, boards=[board], by=by)
        return report.boards[0]
