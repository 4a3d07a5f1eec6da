"""Server Technology: Sentry3-MIB and Sentry4-MIB, enterprise 1718."""

from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Columns, Instances, Oid, PduModel

SERVER_TECHNOLOGY: Oid = (*ENTERPRISES, 1718)
ACTIONS = {0: Act.NOTHING, 1: Act.ON, 2: Act.OFF, 3: Act.REBOOT}


def _index(outlet: int) -> Oid:
    return (1, 1, outlet)  # Sentry 3: tower, infeed, outlet. Sentry 4: unit, input cord, outlet


def _sentry3(columns: Columns) -> Instances:
    outlets: Oid = (*SERVER_TECHNOLOGY, 3, 2, 3, 1)  # outletEntry
    return {(*SERVER_TECHNOLOGY, 3, 2, 2, 1, 9, 1, 1): columns.count()} | columns.table(  # infeedOutletCount
        outlets,
        {
            2: columns.text(lambda number: f"AA{number}"),  # outletID
            3: columns.name(),
            5: columns.state(off=0, on=1, pending_off=2, pending_on=3),  # outletStatus: offWait(2), onWait(3)
            7: columns.watts(lambda watts: watts * 100 // 230),  # outletLoadValue, 0.01 A
            10: columns.state(off=4, on=5, pending_on=10, pending_off=11),  # outletControlState
            11: columns.command(ACTIONS, reads=columns.same(0)),  # outletControlAction
            14: columns.watts(),  # outletPower, W
        },
        _index,
    )


def _sentry4(columns: Columns) -> Instances:
    outlet: Oid = (*SERVER_TECHNOLOGY, 4, 1, 8)

    return (
        columns.table(
            (*outlet, 2, 1),  # st4OutletConfigEntry
            {2: columns.text(lambda number: f"AA{number}"), 3: columns.name()},
            _index,
        )
        | columns.table(
            (*outlet, 3, 1),  # st4OutletMonitorEntry
            {
                1: columns.state(on=1, off=2),  # st4OutletState: unknown(0), on(1), off(2)
                2: columns.same(0),  # st4OutletStatus: normal(0)
                7: columns.watts(),  # st4OutletActivePower, W
                9: columns.watts(lambda watts: watts * 10 // 9),  # st4OutletApparentPower, VA
            },
            _index,
        )
        | columns.table(
            (*outlet, 5, 1),  # st4OutletControlEntry
            {
                # st4OutletControlState: pendOn(8), pendOff(9), off(10), on(11)
                1: columns.state(off=10, on=11, pending_on=8, pending_off=9),
                # st4OutletControlAction: none(0), on(1), off(2), reboot(3), queueOn(4), queueOff(5), queueReboot(6)
                2: columns.command(ACTIONS, reads=columns.same(0)),
            },
            _index,
        )
    )


MODELS = (
    PduModel("sentry3", (*SERVER_TECHNOLOGY, 3), "Sentry Switched CDU", _sentry3),
    PduModel("sentry4", (*SERVER_TECHNOLOGY, 4), "Sentry Smart PDU", _sentry4),
)
