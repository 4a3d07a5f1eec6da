"""The broker's part of the settings file: `[broker]`, and `[mqtt]` which it shares with the agent."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from broker.ledger import Policy
from daemon.mqtt_settings import MqttSettings
from daemon.settings_file import FileSettings, load_settings
from wire.names import Id

OTHER_TABLES = ("agent", "netboot", "profiles", "controllers", "circuits", "boards", "pdu_listener", "dns")
"""Tables of the same file that belong to the agent."""
DAY_S = 86400


class BrokerTable(BaseModel):
    """`[broker]`. Seconds where a name ends in `_s`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Id = "broker"
    """Holder of the leases, as agents and people see it."""
    state_dir: Path = Path("/var/lib/boardhand/broker")
    """Where the queue is kept."""
    idle_s: float = Field(default=300, ge=0, le=30 * DAY_S)
    """A board that has been idle for so long goes to sleep; 0: boards stay up. The label `sleep: false` exempts one."""
    min_on_s: float = Field(default=120, ge=0, le=DAY_S)
    """A board that was switched on stays on for at least so long."""
    booting_cap: int = Field(default=2, ge=1, le=10_000)
    """So many boards may come up at once: the fuse, the TFTP and the NFS server set this."""
    offer_timeout_s: float = Field(default=10, gt=0, le=3600)
    """A board that has not accepted a job after this is offered it again, three times in all."""
    wake_timeout_s: float = Field(default=900, gt=0, le=DAY_S)
    """A board that is not ready so long after its wake is given up. Above the boards' own `boot_timeout_s`."""
    power_timeout_s: float = Field(default=60, gt=0, le=3600)
    """Power commands expire after this."""
    lost_grace_s: float = Field(default=60, ge=0, le=DAY_S)
    """A board that vanishes from MQTT in the middle of a job gets so long to come back."""
    absent_grace_s: float = Field(default=15, ge=0, le=3600)
    """A board that is there, and does not show its job, gets so long."""
    bench_s: float = Field(default=120, ge=0, le=DAY_S)
    """A board that did not come up, or did not take an offer, is left alone for so long."""
    max_queued: int = Field(default=10_000, ge=1, le=1_000_000)
    keep_jobs: int = Field(default=10_000, ge=10, le=10_000_000)
    """So many of the newest jobs stay in the store, with their logs."""
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
            lost_grace_s=self.lost_grace_s,
            absent_grace_s=self.absent_grace_s,
            bench_s=self.bench_s,
            max_queued=self.max_queued,
        )


class BrokerSettings(FileSettings):
    """The tables of the settings file that the broker reads."""

    broker: BrokerTable = BrokerTable()
    mqtt: MqttSettings = MqttSettings()


def read_settings(path: Path) -> BrokerSettings:
    """The settings in `path`; tables of other programs are passed over.

    Raises:
        daemon.settings_file.SettingsError: one line that names file, line and key.
    """
    return load_settings(BrokerSettings, path, ignore_tables=OTHER_TABLES)
