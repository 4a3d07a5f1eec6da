"""Raritan: PDU-MIB of Dominion PX (enterprise 13742, product 4) and PDU2-MIB of PX2 and PX3 (product 6)."""

from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Columns, Gauge, Instances, Oid, PduModel

RARITAN: Oid = (*ENTERPRISES, 13742)
CYCLE = {0: Act.OFF, 1: Act.ON, 2: Act.REBOOT}
ACTIVE_POWER = 5
"""SensorTypeEnumeration of PDU2-MIB."""


def _px1(columns: Columns) -> Instances:
    px: Oid = (*RARITAN, 4, 1, 2)
    state = columns.state(on=1, off=0)
    return {(*px, 1, 0): columns.count()} | columns.table(  # outletCount
        (*px, 2, 1),  # outletEntry
        {
            2: columns.name(),  # outletLabel
            3: columns.command(CYCLE, reads=state),  # outletOperationalState: error(-1), off(0), on(1), cycling(2)
            4: columns.watts(lambda watts: Gauge(watts * 1000 // 230)),  # outletCurrent, mA
            7: columns.watts(Gauge),  # outletActivePower, W
        },
    )


def _px2(columns: Columns) -> Instances:
    px: Oid = (*RARITAN, 6)

    def index(outlet: int) -> Oid:
        return (1, outlet)  # pduId, outletId

    def sensor(outlet: int) -> Oid:
        return (1, outlet, ACTIVE_POWER)

    return (
        {(*px, 3, 2, 2, 1, 4, 1): columns.count()}  # outletCount
        | columns.table(
            (*px, 3, 5, 3, 1),  # outletConfigurationEntry
            {
                2: columns.text(str),  # outletLabel
                3: columns.name(),  # outletName
                28: columns.switchable(yes=1, no=2),  # outletSwitchable, TruthValue
            },
            index,
        )
        | columns.table((*px, 3, 5, 4, 1), {7: columns.same(Gauge(1))}, sensor)  # outletSensorDecimalDigits
        | columns.table(
            (*px, 4, 1, 2, 1),  # outletSwitchControlEntry
            {
                2: columns.command(CYCLE),  # switchingOperation
                3: columns.state(on=7, off=8),  # outletSwitchingState, SensorStateEnumeration
            },
            index,
        )
        # measurementsOutletSensorValue, in tenths as outletSensorDecimalDigits says
        | columns.table((*px, 5, 4, 3, 1), {4: columns.watts(lambda watts: Gauge(watts * 10))}, sensor)
    )


MODELS = (
    PduModel("raritan-px1", (*RARITAN, 4), "Raritan Dominion PX", _px1),
    PduModel("raritan-px2", (*RARITAN, 6), "PX2 030004", _px2),
)
