"""PoE switches: POWER-ETHERNET-MIB (RFC 3621), with the watt columns of Cisco and HP, and TP-Link's own MIB."""

from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Column, Columns, Gauge, Instance, Instances, Oid, PduModel

MIB2: Oid = (1, 3, 6, 1, 2, 1)
POWER_ETHERNET: Oid = (*MIB2, 105, 1)
TRUE, FALSE = 1, 2  # TruthValue (RFC 2579)
DISABLED, SEARCHING, DELIVERING = 1, 2, 3  # pethPsePortDetectionStatus


def _index(port: int) -> Oid:
    return (1, port)  # pethPsePortGroupIndex, pethPsePortIndex


def _rfc3621(columns: Columns) -> Instances:
    outlets = columns.outlets

    def admin(port: str) -> Instance:
        # A wish: it changes at once, and the detection status follows.
        def read() -> int:
            target = outlets.pending(port)
            return TRUE if (outlets.on[port] if target is None else target) else FALSE

        return Instance(read, outlet=port)

    def detection(port: str) -> Instance:
        def read() -> int:
            if outlets.pending(port) is False or not (outlets.on[port] or outlets.pending(port)):
                return DISABLED
            return SEARCHING if outlets.pending(port) or port in outlets.idle else DELIVERING

        return Instance(read, outlet=port)

    total = Instance(lambda: Gauge(sum(outlets.watts(port) for port in outlets.on)))
    return (
        columns.table(
            (*POWER_ETHERNET, 1, 1),  # pethPsePortEntry
            {3: columns.command({TRUE: Act.ON, FALSE: Act.OFF}, reads=admin), 6: detection},
            _index,
        )
        | columns.table((*MIB2, 31, 1, 1, 1), {18: columns.name()})  # ifAlias; ifIndex is the port here
        | {(*POWER_ETHERNET, 3, 1, 1, 4, 1): total}  # pethMainPseConsumptionPower, W
    )


def _milliwatts(columns: Columns) -> Column:
    return columns.watts(lambda watts: Gauge(watts * 1000))


def _cisco(columns: Columns) -> Instances:
    extension: Oid = (*ENTERPRISES, 9, 9, 402, 1, 2, 1)  # cpeExtPsePortEntry
    return _rfc3621(columns) | columns.table(
        extension, {9: _milliwatts(columns)}, _index
    )  # cpeExtPsePortPwrConsumption


def _hp(columns: Columns) -> Instances:
    extension: Oid = (*ENTERPRISES, 11, 2, 14, 11, 1, 9, 1, 1, 1)  # hpicfPoePethPsePortEntry
    return _rfc3621(columns) | columns.table(extension, {8: _milliwatts(columns)}, _index)


def _tplink(columns: Columns) -> Instances:
    ports: Oid = (*ENTERPRISES, 11863, 6, 56, 1, 1, 2, 1, 1)
    state = columns.state(off=0, on=1)
    return columns.table(
        ports,
        {
            2: columns.command({0: Act.OFF, 1: Act.ON}, reads=state),  # disable(0), enable(1)
            7: columns.watts(lambda watts: watts * 10),  # 0.1 W
            11: columns.state(off=0, on=2, pending_on=1),  # off(0), turning-on(1), on(2)
        },
    )


MODELS = (
    PduModel(
        "poe-rfc3621",
        (*ENTERPRISES, 3955, 1000, 3, 18, 2),
        "LGS318P 18-Port Gigabit PoE+ Smart Switch",
        _rfc3621,
    ),
    PduModel("poe-cisco", (*ENTERPRISES, 9, 1, 1208), "Cisco IOS Software, C2960 Software", _cisco),
    PduModel("poe-hp", (*ENTERPRISES, 11, 2, 3, 7, 11, 87), "ProCurve Switch 2520G-8-PoE", _hp),
    PduModel("tplink-poe", (*ENTERPRISES, 11863, 5, 7), "JetStream 8-Port Gigabit Smart PoE Switch", _tplink),
)
