"""PDUs whose outlets are not rows of one table, or are counted oddly: ATEN, Digipower, Dataprobe iBoot, NETIO."""

from collections.abc import Callable

from virtual_lab.snmp_pdu_model import (
    ENTERPRISES,
    Act,
    Columns,
    Instance,
    Instances,
    Oid,
    PduModel,
    RefusedSetError,
    Value,
)

ATEN: Oid = (*ENTERPRISES, 21317)
ATEN_OUTLETS = 42
"""So many outlet objects ATEN-PE-CFG has, whatever the device has; those beyond read not-support(7)."""
NOT_SUPPORTED = 7
DIGIPOWER: Oid = (*ENTERPRISES, 17420)
IBOOT: Oid = (*ENTERPRISES, 1418, 6)
NET_SNMP_LINUX: Oid = (*ENTERPRISES, 8072, 3, 2, 10)
NETIO: Oid = (*ENTERPRISES, 47952)


def _aten(columns: Columns) -> Instances:
    device: Oid = (*ATEN, 1, 3, 2, 2, 2, 2)

    def place(outlet: int) -> Oid:
        # outlet1 is object 2; object 10 is the name table, so that outlet9 is object 11.
        return (*device, outlet + (1 if outlet <= 8 else 2), 0)

    state = columns.state(off=1, on=2, pending_off=3, pending_on=3)
    count = len(columns.outlets.on)
    return (
        {place(outlet): columns.fixed(NOT_SUPPORTED) for outlet in range(count + 1, ATEN_OUTLETS + 1)}
        | columns.objects(place, columns.command({1: Act.OFF, 2: Act.ON, 4: Act.REBOOT}, reads=state))
        | columns.table((*device, 10, 1), {2: columns.name()})
        | columns.table((*device, 1, 1), {4: columns.watts(lambda watts: f"{watts:.3f}")})  # a DisplayString, W
    )


def _digipower(columns: Columns) -> Instances:
    outlets = columns.outlets
    pdu: Oid = (*DIGIPOWER, 1, 2, 9, 1)

    def read() -> str:
        return ",".join("-1" if o in outlets.missing else str(int(on)) for o, on in outlets.on.items())

    def write(value: Value) -> Callable[[], None]:
        outlets.sets.append(("all", -1))
        wanted = bytes(value).decode("ascii", "replace").split(",") if isinstance(value, bytes) else []
        if len(wanted) != len(outlets.on) or not set(wanted) <= {"0", "1", "-1"}:
            raise RefusedSetError("wrongValue")
        changes = {
            outlet: item == "1"
            for (outlet, on), item in zip(outlets.on.items(), wanted, strict=True)
            if item != "-1" and (item == "1") != on
        }
        if changes.keys() & outlets.refusing:
            raise RefusedSetError("genErr")

        def carry_out() -> None:
            for outlet, on in changes.items():
                if outlet not in outlets.unswitched:
                    outlets.act(outlet, Act.ON if on else Act.OFF)

        return carry_out

    # pdu01OutletStatus, all outlets in one string: on(1), off(0), absent(-1), lost(-2); PDUMIB of 2010 lets it be
    # written, DigiPower's own copy says read-only. Names are objects (pdu01OutletNConfig), not rows.
    states = {(*pdu, 13, 0): Instance(read, write, bytes)}
    return states | columns.objects(lambda outlet: (*pdu, 14, outlet, 0), columns.name())


def _iboot(columns: Columns) -> Instances:
    def index(outlet: int) -> Oid:
        return (outlet - 1,)  # outletIndex is outletNumber - 1

    commands = {0: Act.OFF, 1: Act.ON, 2: Act.REBOOT}
    return {(*IBOOT, 1, 6, 0): columns.count()} | columns.table(  # deviceNumberOfOutlets
        (*IBOOT, 5, 1),  # outletEntry
        {
            1: columns.number(),
            2: columns.name(),
            5: columns.command(commands),  # outletControl: off(0), on(1), cycle(2)
            6: columns.state(off=0, on=1, pending_on=4),  # outletStatus: off(0), on(1), cycle(2), reboot(3), pend-on(4)
            7: columns.state(off=0, on=1),  # outletActualStatus
        },
        index,
    )


def _netio(columns: Columns) -> Instances:
    # netioOutputAction: off(0), on(1), reset(2), shortOn(3), switch(4), idle(5)
    actions = {0: Act.OFF, 1: Act.ON, 2: Act.REBOOT, 5: Act.NOTHING}
    return columns.table(
        (*NETIO, 1, 1, 1),  # netioOutputEntry of NETIO-PRODUCTS-NETIO-MIB
        {
            1: columns.number(),
            2: columns.name(),
            3: columns.state(off=0, on=1),
            5: columns.command(actions, reads=columns.same(5)),
            25: columns.watts(),  # netioOutputLoad, W
        },
        # netioOutputID alone is the index in the MIB; NETIO's application note AN11 shows a .0 behind it.
        lambda outlet: (outlet, 0),
    )


MODELS = (
    PduModel("aten-pe", (*ATEN, 1, 3), "ATEN PE8216", _aten),
    PduModel("digipower", DIGIPOWER, "Digital Power PDU", _digipower),
    PduModel("iboot-pdu", NET_SNMP_LINUX, "Linux ibootpdu 4.4.9 #6 SMP Thu Apr 27 15:48:52 EDT 2017 armv7l", _iboot),
    PduModel("netio", NETIO, "NETIO 4All", _netio),
)
