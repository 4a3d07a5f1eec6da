"""The MIB of the virtual PDU: APC's three outlet tables as a sorted list of instances.

It is written from the MIB, not from our driver's table, so that one checks the other. PowerNet-MIB, enterprise 318.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

FAMILY_NAMES = ("apc-rpdu2", "apc-rpdu", "apc-spdu")

Oid = tuple[int, ...]
SYSTEM: Oid = (1, 3, 6, 1, 2, 1, 1)
APC: Oid = (1, 3, 6, 1, 4, 1, 318)
HARDWARE: Oid = (*APC, 1, 1)
SYS_OBJECT_IDS = {"apc-rpdu2": (*APC, 1, 3, 4, 6), "apc-rpdu": (*APC, 1, 3, 4, 5), "apc-spdu": (*APC, 1, 3, 4, 2)}

IMMEDIATE_ON, IMMEDIATE_OFF, IMMEDIATE_REBOOT = 1, 2, 3
COMMANDS = {IMMEDIATE_ON, IMMEDIATE_OFF, IMMEDIATE_REBOOT}
"""Delayed commands (4 and up) need the outlet's own delay settings, which this PDU does not have: wrongValue."""


class Outlets(Protocol):
    """The outlets behind the tables."""

    on: dict[str, bool]
    refusing: set[str]
    sets: list[tuple[str, int]]

    def watts(self, outlet: str) -> int: ...
    def is_pending(self, outlet: str) -> bool: ...
    def command(self, outlet: str, on: bool, after_s: float = 0.0) -> None: ...  # noqa: FBT001
    def reboot(self, outlet: str) -> None: ...


class RefusedSetError(Exception):
    """A SET that the PDU answers with `status` (a name of RFC 3416, section 3)."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance: `read` gives int, str or an OID; `outlet` is set where a SET commands it."""

    read: Callable[[], int | str | Oid]
    outlet: str | None = None


class PduTables:
    """All instances, in lexicographical order."""

    def __init__(self, outlets: Outlets, families: Iterable[str]) -> None:
        self._outlets = outlets
        self._last_command: dict[str, int] = {}
        chosen = [name for name in FAMILY_NAMES if name in set(families)]
        instances: dict[Oid, Instance] = {
            (*SYSTEM, 1, 0): Instance(lambda: "boardhand virtual PDU"),
            (*SYSTEM, 2, 0): Instance(lambda: SYS_OBJECT_IDS[chosen[0]] if chosen else (0, 0)),
            (*SYSTEM, 5, 0): Instance(lambda: "virtual-pdu"),
        }
        build = {"apc-rpdu2": self._rpdu2, "apc-rpdu": self._rpdu, "apc-spdu": self._spdu}
        for name in chosen:
            instances.update(build[name]())
        self._instances = dict(sorted(instances.items()))
        self._order = list(self._instances)

    def get(self, oid: Oid) -> int | str | Oid | None:
        """The value of an instance, or None where there is none."""
        instance = self._instances.get(oid)
        return None if instance is None else instance.read()

    def next(self, oid: Oid) -> tuple[Oid, int | str | Oid] | None:
        """The first instance after `oid`, or None at the end of the MIB."""
        at = bisect_right(self._order, oid)
        return None if at == len(self._order) else (self._order[at], self._instances[self._order[at]].read())

    def set(self, oid: Oid, value: object) -> None:
        """Carry out a SET.

        Raises:
            RefusedSetError: with the error-status that the PDU answers.
        """
        instance = self._instances.get(oid)
        if instance is None:
            raise RefusedSetError("noCreation")
        if instance.outlet is None:
            raise RefusedSetError("notWritable")
        if not isinstance(value, int):
            raise RefusedSetError("wrongType")
        self._outlets.sets.append((instance.outlet, value))
        if instance.outlet in self._outlets.refusing:
            raise RefusedSetError("genErr")
        if value not in COMMANDS:
            raise RefusedSetError("wrongValue")
        self._last_command[instance.outlet] = value
        if value == IMMEDIATE_REBOOT:
            self._outlets.reboot(instance.outlet)
        else:
            self._outlets.command(instance.outlet, value == IMMEDIATE_ON)

    def _state(self, outlet: str, if_on: int, if_off: int) -> Callable[[], int]:
        return lambda: if_on if self._outlets.on[outlet] else if_off

    def _command_column(self, outlet: str) -> Callable[[], int]:
        return lambda: self._last_command.get(outlet, IMMEDIATE_ON if self._outlets.on[outlet] else IMMEDIATE_OFF)

    def _table(self, base: Oid, columns: dict[int, Callable[[str], Instance]]) -> dict[Oid, Instance]:
        return {(*base, column, int(o)): make(o) for column, make in columns.items() for o in self._outlets.on}

    def _pending(self, outlet: str, pending: int, none: int) -> Callable[[], int]:
        return lambda: pending if self._outlets.is_pending(outlet) else none

    def _spdu(self) -> dict[Oid, Instance]:
        master: Oid = (*HARDWARE, 4, 4)
        scalar = {(*master, 1, 0): Instance(lambda: len(self._outlets.on))}  # sPDUOutletControlTableSize
        return scalar | self._table(
            (*master, 2, 1),  # sPDUOutletControlEntry
            {
                1: lambda o: Instance(lambda: int(o)),
                2: lambda o: Instance(self._pending(o, 1, 2)),  # sPDUOutletPending: yes(1), no(2)
                3: lambda o: Instance(self._state(o, 1, 2), o),  # sPDUOutletCtl: on(1), off(2), reboot(3)
                4: lambda o: Instance(lambda: f"Outlet {o}"),
            },
        )

    def _rpdu(self) -> dict[Oid, Instance]:
        rpdu: Oid = (*HARDWARE, 12)
        scalar = {(*rpdu, 1, 8, 0): Instance(lambda: len(self._outlets.on))}  # rPDUIdentDeviceNumOutlets
        control = self._table(
            (*rpdu, 3, 3, 1, 1),  # rPDUOutletControlEntry
            {
                1: lambda o: Instance(lambda: int(o)),
                2: lambda o: Instance(lambda: f"Outlet {o}"),
                4: lambda o: Instance(self._command_column(o), o),
            },
        )
        return (
            scalar
            | control
            | self._table(
                (*rpdu, 3, 5, 1, 1),  # rPDUOutletStatusEntry
                {
                    1: lambda o: Instance(lambda: int(o)),
                    2: lambda o: Instance(lambda: f"Outlet {o}"),
                    4: lambda o: Instance(self._state(o, 1, 2)),  # outletStatusOn(1), outletStatusOff(2)
                    5: lambda o: Instance(self._pending(o, 1, 2)),  # pending(1), noCommandPending(2)
                },
            )
        )

    def _rpdu2(self) -> dict[Oid, Instance]:
        rpdu2: Oid = (*HARDWARE, 26)
        properties: dict[Oid, Instance] = {
            (*rpdu2, 4, 2, 1, 4, 1): Instance(lambda: len(self._outlets.on)),  # rPDU2DevicePropertiesNumOutlets
            (*rpdu2, 4, 2, 1, 5, 1): Instance(lambda: len(self._outlets.on)),  # …NumSwitchedOutlets
        }
        status = self._table(
            (*rpdu2, 9, 2, 3, 1),  # rPDU2OutletSwitchedStatusEntry
            {
                1: lambda o: Instance(lambda: int(o)),
                2: lambda _: Instance(lambda: 1),
                3: lambda o: Instance(lambda: f"Outlet {o}"),
                4: lambda o: Instance(lambda: int(o)),
                5: lambda o: Instance(self._state(o, 2, 1)),  # off(1), on(2): the reverse of the command
                6: lambda o: Instance(self._pending(o, 1, 2)),  # pending(1), notPending(2)
            },
        )
        control = self._table(
            (*rpdu2, 9, 2, 4, 1),  # rPDU2OutletSwitchedControlEntry
            {
                1: lambda o: Instance(lambda: int(o)),
                2: lambda _: Instance(lambda: 1),
                3: lambda o: Instance(lambda: f"Outlet {o}"),
                5: lambda o: Instance(self._command_column(o), o),  # immediateOn(1), immediateOff(2)
            },
        )
        power: dict[int, Callable[[str], Instance]] = {7: lambda o: Instance(lambda: self._outlets.watts(o))}
        return properties | status | control | self._table((*rpdu2, 9, 4, 3, 1), power)
