"""HP and HPE: CPQPOWER-MIB, enterprise 232, product 165; G2 metered and switched, G3 (a CIS device)."""

from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Columns, Instances, Oid, PduModel

HPE: Oid = (*ENTERPRISES, 232, 165)


def _control(columns: Columns, entry: Oid, unit: int) -> Instances:
    return columns.table(
        entry,
        {
            1: columns.state(off=1, on=2, pending_off=3, pending_on=4),  # …ControlStatus
            2: columns.seconds(Act.OFF),  # …ControlOffCmd
            3: columns.seconds(Act.ON),  # …ControlOnCmd
            4: columns.seconds(Act.REBOOT),  # …ControlRebootCmd
            8: columns.switchable(yes=1, no=2),  # …ControlSwitchable
        },
        lambda outlet: (unit, outlet),
    )


def _g2(columns: Columns) -> Instances:
    pdu: Oid = (*HPE, 7)
    unit = 0
    outlets = {2: columns.name(), 14: columns.watts()}  # pdu2OutletName, pdu2OutletWatts
    return (
        {(*pdu, 1, 2, 1, 12, unit): columns.count()}
        | columns.table((*pdu, 5, 1, 1), outlets, lambda outlet: (unit, outlet))
        | _control(columns, (*pdu, 5, 2, 1), unit)
    )


def _g3(columns: Columns) -> Instances:
    pdu: Oid = (*HPE, 11)
    unit = 1
    outlets = {2: columns.name(), 13: columns.watts()}  # pdu3OutletName, pdu3OutletWatts
    return (
        {(*pdu, 1, 2, 1, 13, unit): columns.count()}
        | columns.table((*pdu, 5, 1, 1), outlets, lambda outlet: (unit, outlet))
        | _control(columns, (*pdu, 5, 2, 1), unit)
    )


MODELS = (
    PduModel("hpe-g2", (*HPE, 7), "HPE Metered and Switched PDU G2", _g2),
    PduModel("hpe-g3", (*HPE, 11), "HPE G3 Metered and Switched PDU", _g3),
)
