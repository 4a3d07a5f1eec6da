"""Vertiv and those it came from: Liebert MPH (enterprise 476), Geist (21239), Avocent PM (10418)."""

from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Columns, Gauge, Instances, Oid, PduModel

LIEBERT: Oid = (*ENTERPRISES, 476, 1, 42)
GEIST: Oid = (*ENTERPRISES, 21239)
AVOCENT: Oid = (*ENTERPRISES, 10418, 17)


def _mph(columns: Columns) -> Instances:
    receptacles: Oid = (*LIEBERT, 3, 8, 50, 20, 1)  # lgpPduRcpEntry
    return columns.table(
        receptacles,
        {
            10: columns.name(),  # lgpPduRcpEntryUsrLabel
            65: columns.watts(Gauge),  # lgpPduRcpEntryPwrOut, W
            95: columns.state(off=1, on=2, pending_on=3),  # …PwrState: unknown(0), off(1), on(2), off-pending-on(3)
            # …Control: off(0), on(1), cycle(2); the state's numbers are others
            100: columns.command({0: Act.OFF, 1: Act.ON, 2: Act.REBOOT}),
        },
        lambda outlet: (1, 2, outlet),  # PDU, branch, receptacle; the recorded one has its outlets on branch 2
    )


def _v5(columns: Columns) -> Instances:
    outlets: Oid = (*GEIST, 5, 2, 3)
    commands = {
        1: Act.CANCEL,
        2: Act.ON,
        3: Act.DELAYED_ON,
        4: Act.OFF,
        5: Act.DELAYED_OFF,
        6: Act.REBOOT,
        7: Act.DELAYED_REBOOT,
    }
    return columns.table(
        (*outlets, 5, 1),  # pduOutletSwitchEntry
        {
            3: columns.name(),
            4: columns.state(on=1, off=2, pending_off=3, pending_on=4),  # on2off(3), off2on(4)
            6: columns.command(commands, reads=columns.same(1)),  # no-action / cancel(1) when nothing is under way
        },
    ) | columns.table((*outlets, 6, 1), {12: columns.watts(Gauge)})  # pduOutletMeterRealPower, W


def _v3(columns: Columns) -> Instances:
    geist: Oid = (*GEIST, 2)
    # One column with two meanings: read as off(0), on(1), written as a command.
    commands = {
        0: Act.CANCEL,
        1: Act.ON,
        2: Act.DELAYED_ON,
        3: Act.OFF,
        4: Act.DELAYED_OFF,
        5: Act.REBOOT,
        6: Act.DELAYED_REBOOT,
    }
    return {(*geist, 1, 8, 1, 16, 0): columns.count()} | columns.table(  # ctrlOutletCount
        (*geist, 16, 1),  # ctrlOutletEntry
        {
            2: columns.name(),  # ctrlOutletName
            # ctrlOutletStatus, a Gauge32: an INTEGER is the wrong type
            3: columns.command(commands, reads=columns.state(on=Gauge(1), off=Gauge(0)), kind=Gauge),
            15: columns.watts(Gauge),  # ctrlOutletPower, W
        },
    )


def _pm(columns: Columns) -> Instances:
    power: Oid = (*AVOCENT, 2, 5)

    def index(outlet: int) -> Oid:
        return (1, 1, outlet)  # unit, PDU, outlet

    return {(*power, 3, 1, 8, 1, 1): columns.count()} | columns.table(
        (*power, 5, 1),  # pmPowerMgmtOutletsTableEntry
        {
            4: columns.name(),
            # off(1), on(2), offLocked(3), onLocked(4), offCycle(5), onPendingOff(6), offPendingOn(7), onPendingCycle(8)
            5: columns.state(off=1, on=2, pending_off=6, pending_on=7),
            6: columns.command({1: Act.NOTHING, 2: Act.ON, 3: Act.OFF, 4: Act.REBOOT}, reads=columns.same(1)),
            60: columns.watts(lambda watts: watts * 10),  # 0.1 W
        },
        index,
    )


MODELS = (
    PduModel("liebert-mph", LIEBERT, "ZeroU16Port", _mph),
    PduModel("vertiv-v5", (*GEIST, 42, 1, 52), "A-U32.024_PDU-B", _v5),
    PduModel("geist-v3", (*GEIST, 2), "Geist RCX", _v3),
    PduModel("avocent-pm", (*AVOCENT, 1, 7), "Avocent Cyclades PM3000", _pm),
)
