"""The broker's part of the settings file: `[broker]`, and `[mqtt]` which it shares with the agent."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from broker.board_webhooks import WebhookTable
from broker.health.settings import HealthTable
from broker.leases.settings import LeasesTable
from broker.ledger import Policy
from broker.sleep.settings import ShelfTable, SleepTable
from broker.store.settings import StoreUrl
from broker.web.settings import WebTable
from daemon.mqtt_settings import MqttSettings
from daemon.settings_file import FileSettings, load_settings
from wire.names import Id

OTHER_TABLES = (
    "agent",
    "netboot",
    "profiles",
    "controllers",
    "circuits",
    "boards",
    "flash",
    "pdu_listener",
    "dns",
    "hooks",
    "roots",
    "consoles",
)
"""Tables of the same file that belong to the agent."""
DAY_S = 86400
WebhookPrefix = Annotated[str, Field(pattern=r"^https?://[^/?#@\\\s]+/", max_length=2048)]
"""With the slash after the host, so that `https://ci.example.org.evil.net` does not begin with it."""


class BrokerTable(BaseModel):
    """`[broker]`. Seconds where a name ends in `_s`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Id = "broker"
    """Holder of the leases, as agents and people see it."""
    state_dir: Path = Path("/var/lib/boardhand/broker")
    """Where the queue is kept."""
    store: StoreUrl | None = None
    """`postgresql://USER@HOST/DATABASE`, for several brokers at once; without it SQLite in `state_dir`."""
    store_password_file: Path | None = None
    """Holds the password of `store`. Without it PostgreSQL's own ways count: `~/.pgpass`, `PGPASSFILE`, peer."""
    idle_s: float = Field(default=300, ge=0, le=30 * DAY_S)
    """A board that has been idle for so long goes to sleep; 0: boards stay up. The label `sleep: false` exempts one."""
    min_on_s: float = Field(default=120, ge=0, le=DAY_S)
    """A board that was switched on stays on for at least so long."""
    min_off_s: float = Field(default=0, ge=0, le=DAY_S)
    """A board that went to sleep sleeps for at least so long, whatever waits for it."""
    sleep: list[SleepTable] = []
    shelves: list[ShelfTable] = []
    health: list[HealthTable] = []
    leases: LeasesTable = LeasesTable()
    booting_cap: int = Field(default=2, ge=1, le=10_000)
    """So many boards may come up at once: the fuse, the TFTP and the NFS server set this."""
    offer_timeout_s: float = Field(default=10, gt=0, le=3600)
    """A board that has not accepted a job after this is offered it again, three times in all."""
    wake_timeout_s: float = Field(default=900, gt=0, le=DAY_S)
    """A board that is not ready so long after its wake is given up. Above the boards' own `boot_timeout_s`."""
    power_timeout_s: float = Field(default=60, gt=0, le=3600)
    """Power commands expire after this."""
    hook_timeout_s: float = Field(default=120, gt=0, le=3600)
    """An agent with hooks at `before-job` has so long to say whether a board may take a job. Above the time limits of
    its hooks."""
    lost_grace_s: float = Field(default=60, ge=0, le=DAY_S)
    """A board that vanishes from MQTT in the middle of a job gets so long to come back."""
    absent_grace_s: float = Field(default=15, ge=0, le=3600)
    """A board that is there, and does not show its job, gets so long."""
    bench_s: float = Field(default=120, ge=0, le=DAY_S)
    """A board that did not come up, or did not take an offer, is left alone for so long."""
    max_queued: int = Field(default=10_000, ge=1, le=1_000_000)
    keep_jobs: int = Field(default=10_000, ge=10, le=10_000_000)
    """So many of the newest jobs stay in the store, with their logs."""
    artifacts_dir: Path | None = None
    """Where artifacts are kept; `artifacts` in `state_dir` if absent. Several brokers need one that all of them see."""
    keep_artifacts_mb: int = Field(default=4096, ge=1, le=100_000_000)
    """All artifacts together; those of the oldest jobs go first."""
    webhooks: list[WebhookPrefix] = Field(default=[])
    """Jobs may notify URLs that begin with one of these; with none, none. Without it anybody who submits jobs could
    have this host call any other."""
    webhook: list[WebhookTable] = []
    webhook_secret_file: Path | None = None
    """Signs the webhooks: HMAC-SHA256 with the file's text, blanks at its ends cut off."""
    settle_s: float = Field(default=1, gt=0, le=60)
    """The picture of the farm is complete when no retained message came for so long."""
    tick_s: float = Field(default=0.5, gt=0, le=60)

    def policy(self) -> Policy:
        """The rules for the scheduler."""
        return Policy(
            name=self.name,
            idle_s=self.idle_s,
            min_on_s=self.min_on_s,
            booting_cap=self.booting_cap,
            offer_timeout_s=self.offer_timeout_s,
            wake_timeout_s=self.wake_timeout_s,
            power_timeout_s=self.power_timeout_s,
            hook_timeout_s=self.hook_timeout_s,
            lost_grace_s=self.lost_grace_s,
            absent_grace_s=self.absent_grace_s,
            bench_s=self.bench_s,
            max_queued=self.max_queued,
            min_off_s=self.min_off_s,
            sleep=tuple(table.rule(self.idle_s, self.min_on_s, self.min_off_s) for table in self.sleep),
            shelves=tuple(table.shelf() for table in self.shelves),
            health=tuple(table.rule() for table in self.health),
            leases=self.leases.rules(),
        )


class BrokerSettings(FileSettings):
    """The tables of the settings file that the broker reads."""

    broker: BrokerTable = BrokerTable()
    mqtt: MqttSettings = MqttSettings()
    web: WebTable | None = None


def read_settings(path: Path) -> BrokerSettings:
    """The settings in `path`; tables of other programs are passed over.

    Raises:
        daemon.settings_file.SettingsError: one line that names file, line and key.
    """
    return load_settings(BrokerSettings, path, ignore_tables=OTHER_TABLES)
