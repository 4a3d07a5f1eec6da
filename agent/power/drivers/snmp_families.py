"""Families of SNMP PDUs as data: which columns hold state, command, name and watts, and what the numbers mean.

The numbers differ inside one MIB: rPDU2 says 1 = off and 2 = on in its status, and takes 1 = on and 2 = off as command.
Object names are those of APC's PowerNet-MIB; E is 1.3.6.1.4.1 (enterprises), 318 is APC.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from agent.power.driver import Timing
from wire.phases import Power

APC = "1.3.6.1.4.1.318"


# A mains outlet feeds a supply with big capacitors: 2 s without mains is too short for some, 3 s was seen to do.
# The read-back follows after 1.5-2.5 s on some cards (HA core #155182); SONiC's lab had to raise its wait to 20 s
# (sonic-mgmt #13793).
APC_TIMING = Timing(verify_deadline_s=20.0, poll_interval_s=0.02, settle_s=3.0, min_off_s=3.0, attempts=3)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; an outlet's instance is `oid` and the outlet's index."""

    oid: str
    mib_object: str

    def at(self, outlet: str) -> str:
        """The instance of `outlet`."""
        return f"{self.oid}.{outlet}"


@dataclass(frozen=True, slots=True)
class Family:
    """One family of PDUs.

    Attributes:
        states: values of `state`; one that is not here is unknown.
        on: the value that `control` takes for immediate on; `off` likewise.
        count: scalar with the number of outlets, for error messages.
    """

    name: str
    state: Column
    states: Mapping[int, Power]
    control: Column
    on: int
    off: int
    label: Column
    count: str
    watts: Column | None = None
    timing: Timing = APC_TIMING


RPDU2 = Family(
    name="apc-rpdu2",
    state=Column(f"{APC}.1.1.26.9.2.3.1.5", "PowerNet-MIB::rPDU2OutletSwitchedStatusState"),
    states=MappingProxyType({1: Power.OFF, 2: Power.ON}),
    control=Column(f"{APC}.1.1.26.9.2.4.1.5", "PowerNet-MIB::rPDU2OutletSwitchedControlCommand"),
    on=1,
    off=2,
    label=Column(f"{APC}.1.1.26.9.2.3.1.3", "PowerNet-MIB::rPDU2OutletSwitchedStatusName"),
    count=f"{APC}.1.1.26.4.2.1.4.1",
    watts=Column(f"{APC}.1.1.26.9.4.3.1.7", "PowerNet-MIB::rPDU2OutletMeteredStatusPower"),
)
RPDU = Family(
    name="apc-rpdu",
    state=Column(f"{APC}.1.1.12.3.5.1.1.4", "PowerNet-MIB::rPDUOutletStatusOutletState"),
    states=MappingProxyType({1: Power.ON, 2: Power.OFF}),
    control=Column(f"{APC}.1.1.12.3.3.1.1.4", "PowerNet-MIB::rPDUOutletControlOutletCommand"),
    on=1,
    off=2,
    label=Column(f"{APC}.1.1.12.3.5.1.1.2", "PowerNet-MIB::rPDUOutletStatusOutletName"),
    count=f"{APC}.1.1.12.1.8.0",
)
SPDU = Family(
    name="apc-spdu",
    state=Column(f"{APC}.1.1.4.4.2.1.3", "PowerNet-MIB::sPDUOutletCtl"),
    states=MappingProxyType({1: Power.ON, 2: Power.OFF}),
    control=Column(f"{APC}.1.1.4.4.2.1.3", "PowerNet-MIB::sPDUOutletCtl"),
    on=1,
    off=2,
    label=Column(f"{APC}.1.1.4.4.2.1.4", "PowerNet-MIB::sPDUOutletCtlName"),
    count=f"{APC}.1.1.4.4.1.0",
)

FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in (RPDU2, RPDU, SPDU)})
"""In the order in which auto-detection asks: newer cards answer the older tables too, and there less well."""
