"""Eaton: ePDU G3 (EATON-EPDU-MIB, enterprise 534), and the PDUs of makers that it bought."""

from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Columns, Gauge, Instances, Oid, PduModel

EATON: Oid = (*ENTERPRISES, 534)
PULIZZI: Oid = (*ENTERPRISES, 20677)


def _g3(columns: Columns) -> Instances:
    epdu: Oid = (*EATON, 6, 6, 7)

    def index(outlet: int) -> Oid:
        return (0, outlet)  # strappingIndex: 0 is the unit that is asked; outletIndex

    return (
        {(*epdu, 1, 2, 1, 22, 0): columns.count()}  # outletCount
        | columns.table((*epdu, 6, 1, 1), {3: columns.name()}, index)  # outletName
        | columns.table((*epdu, 6, 5, 1), {3: columns.watts()}, index)  # outletWatts
        | columns.table(
            (*epdu, 6, 6, 1),  # outletControlEntry
            {
                2: columns.state(off=0, on=1, pending_off=2, pending_on=3),  # outletControlStatus
                3: columns.seconds(Act.OFF),  # outletControlOffCmd
                4: columns.seconds(Act.ON),  # outletControlOnCmd
                5: columns.seconds(Act.REBOOT),  # outletControlRebootCmd
                9: columns.switchable(yes=1, no=2),  # outletControlSwitchable
            },
            index,
        )
    )


CYCLE = {0: Act.OFF, 1: Act.ON, 2: Act.REBOOT}


def _revelation(columns: Columns) -> Instances:
    managed: Oid = (*EATON, 6, 6, 6, 1, 2)  # PDU-MIB of Raritan's first line, under Eaton's number
    state = columns.state(on=1, off=0)
    return {(*managed, 1, 0): columns.count()} | columns.table(  # outletCount
        (*managed, 2, 1),  # outletEntry
        {
            1: columns.number(offset=-1),
            2: columns.name(),  # outletLabel
            3: columns.command(CYCLE, reads=state),  # outletOperationalState: error(-1), off(0), on(1), cycling(2)
            4: columns.watts(lambda watts: Gauge(watts * 1000 // 230)),  # outletCurrent, mA
            7: columns.watts(Gauge),  # outletActivePower, W
        },
        lambda outlet: (outlet - 1,),  # counted from 0
    )


def _pulizzi(columns: Columns) -> Instances:
    switched: Oid = (*PULIZZI, 2, 6)
    acts = {1: Act.ON, 2: Act.OFF, 3: Act.REBOOT}
    state = columns.state(on=1, off=2)
    return (
        columns.objects(lambda outlet: (*switched, 1, outlet, 1, 0), columns.name())
        # The control of outlet N is object N+1: object 1 is for all outlets at once.
        | columns.objects(lambda outlet: (*switched, 2, outlet + 1, 0), columns.command(acts, reads=state))
        | columns.objects(lambda outlet: (*switched, 3, outlet, 0), state)
    )


def nlogic_tables(columns: Columns, root: Oid) -> Instances:
    """The tables of nLogic's PDU, which Eaton and Panduit sell under their own numbers."""

    def index(outlet: int) -> Oid:
        return (1, outlet)  # PDU, outlet

    delayed = {3: Act.DELAYED_OFF, 4: Act.DELAYED_ON, 5: Act.REBOOT, 6: Act.DELAYED_REBOOT}
    return (
        {(*root, 1, 2, 1, 13, 1): columns.count()}
        | columns.table((*root, 5, 1, 1), {2: columns.name(), 13: columns.watts()}, index)
        | columns.table(
            (*root, 5, 2, 1),
            {
                1: columns.state(off=1, on=2, pending_off=3, pending_on=4),  # pduOutletControlStatus
                8: columns.switchable(yes=1, no=2),  # pduOutletControlSwitchable
                10: columns.command({1: Act.OFF, 2: Act.ON} | delayed),
            },
            index,
        )
    )


def _nlogic(columns: Columns) -> Instances:
    return nlogic_tables(columns, (*EATON, 7, 1))


MODELS = (
    PduModel("eaton-g3", (*EATON, 6, 6, 7), "ePDU MA 36U-C IN: L5-20P 16A 1P OUT: 24x5-20R", _g3),
    PduModel("eaton-revelation", (*EATON, 6, 6, 6), "Eaton Managed ePDU", _revelation),
    PduModel("eaton-pulizzi", (*PULIZZI, 2), "Eaton Switched ePDU", _pulizzi),
    PduModel("eaton-nlogic", (*EATON, 7, 1), "Eaton ePDU nLogic", _nlogic),
)
