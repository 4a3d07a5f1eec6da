"""CyberPower: CPS-MIB, enterprise 3808; the ePDU tables and those of the newer ePDU2."""

from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Columns, Gauge, Instances, Oid, PduModel

CYBERPOWER: Oid = (*ENTERPRISES, 3808, 1, 1)
COMMANDS = {
    1: Act.ON,
    2: Act.OFF,
    3: Act.REBOOT,
    4: Act.DELAYED_ON,
    5: Act.DELAYED_OFF,
    6: Act.DELAYED_REBOOT,
    7: Act.CANCEL,
    8: Act.NOTHING,  # identify
}


def _epdu(columns: Columns) -> Instances:
    epdu: Oid = (*CYBERPOWER, 3)
    return (
        {(*epdu, 1, 8, 0): columns.count()}  # ePDUIdentDeviceNumOutlets
        | columns.table(
            (*epdu, 3, 3, 1, 1),  # ePDUOutletControlEntry
            {1: columns.number(), 2: columns.name(), 4: columns.command(COMMANDS)},
        )
        | columns.table(
            (*epdu, 3, 5, 1, 1),  # ePDUOutletStatusEntry
            {
                1: columns.number(),
                2: columns.name(),
                4: columns.state(on=1, off=2),
                5: columns.pending(yes=1, no=2),
                7: columns.watts(lambda watts: Gauge(watts * 10 // 230)),  # ePDUOutletStatusLoad, 0.1 A
                8: columns.watts(Gauge),  # ePDUOutletStatusActivePower, W
            },
        )
    )


def _epdu2(columns: Columns) -> Instances:
    outlets: Oid = (*CYBERPOWER, 6, 6)
    return (
        columns.table(
            (*outlets, 1, 4, 1),  # ePDU2OutletSwitchedStatusEntry
            {1: columns.number(), 4: columns.name(), 5: columns.state(on=1, off=2), 6: columns.pending(yes=1, no=2)},
        )
        | columns.table(
            (*outlets, 1, 5, 1),  # ePDU2OutletSwitchedControlEntry
            {1: columns.number(), 4: columns.name(), 5: columns.command(COMMANDS)},
        )
        | columns.table((*outlets, 2, 4, 1), {7: columns.watts()})  # ePDU2OutletMeteredStatusActivePower, W
    )


MODELS = (
    PduModel("cyberpower-epdu", (*CYBERPOWER, 3), "Power Manager", _epdu),
    PduModel("cyberpower-epdu2", (*CYBERPOWER, 6), "CyberPower ePDU2", _epdu2),
)
