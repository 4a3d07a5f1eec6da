"""Makers with one plain outlet table each: Baytech, Tripp Lite, Dell, WTI, IBM, Teltronix, Gude."""

from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Columns, Instances, Oid, PduModel

BAYTECH: Oid = (*ENTERPRISES, 4779)
TRIPP_LITE: Oid = (*ENTERPRISES, 850, 1, 1)
DELL: Oid = (*ENTERPRISES, 674, 10903, 200)
WTI: Oid = (*ENTERPRISES, 2634)
IBM: Oid = (*ENTERPRISES, 2, 6, 223)
TELTRONIX: Oid = (*ENTERPRISES, 23620)
GUDE: Oid = (*ENTERPRISES, 28507)
GUDE_8226 = 58
"""Gude numbers its products below the enterprise; 58 is Expert Power Control 8226, which measures per outlet."""


def _baytech(columns: Columns) -> Instances:
    outlets: Oid = (*BAYTECH, 1, 3, 5)

    def index(outlet: int) -> Oid:
        return (1, outlet)  # unit, outlet

    state = columns.state(off=0, on=1)
    # off(0), on(1), reboot(2), lockon(3), lockoff(4), unlock(5); locks are not modelled
    commands = {0: Act.OFF, 1: Act.ON, 2: Act.REBOOT}
    return {(*outlets, 2, 1, 15, 1): columns.count()} | columns.table(
        (*outlets, 3, 1), {3: columns.command(commands, reads=state), 4: columns.name()}, index
    )


def _padm(columns: Columns) -> Instances:
    control: Oid = (*TRIPP_LITE, 3, 2)

    def index(outlet: int) -> Oid:
        return (1, outlet)  # device, outlet

    commands = {0: Act.NOTHING, 1: Act.OFF, 2: Act.ON, 3: Act.REBOOT}
    return {(*control, 1, 2, 1, 4, 1): columns.count()} | columns.table(  # tlpPduIdentNumOutlets
        (*control, 3, 3, 1, 1),  # tlpPduOutletEntry
        {
            2: columns.name(),
            4: columns.state(off=1, on=2),  # unknown(0), off(1), on(2)
            5: columns.switchable(yes=1, no=2),  # controllable
            6: columns.command(commands, reads=columns.same(0)),
            8: columns.watts(lambda watts: watts * 100 // 230),  # 0.01 A
            9: columns.watts(),
        },
        index,
    )


def _dell(columns: Columns) -> Instances:
    outlets: Oid = (*DELL, 2, 200, 130, 1)
    # on(1), off(2), reboot(3), delayedOn(5), delayedOff(6), delayedReboot(7)
    commands = {1: Act.ON, 2: Act.OFF, 3: Act.REBOOT, 5: Act.DELAYED_ON, 6: Act.DELAYED_OFF, 7: Act.DELAYED_REBOOT}
    return columns.table(
        (*outlets, 2, 1),  # rPDUOutletSwitchedStatusEntry
        {1: columns.number(), 3: columns.name(), 4: columns.state(on=1, off=2)},
    ) | columns.table((*outlets, 4, 1), {1: columns.number(), 3: columns.name(), 4: columns.command(commands)})


def _wti(columns: Columns) -> Instances:
    # The MIB gives 0..8 without words; 5, 6 and 7 are what Comcast's CATS writes to an NPS for on, off and boot.
    return columns.table(
        (*WTI, 3, 100, 200, 1),
        {
            3: columns.state(off=0, on=1),
            4: columns.command({0: Act.NOTHING, 5: Act.ON, 6: Act.OFF, 7: Act.REBOOT}, reads=columns.same(0)),
            5: columns.name(),
            8: columns.watts(),
        },
    )


def _ibm(columns: Columns) -> Instances:
    state = columns.state(off=0, on=1)
    return columns.table(
        (*IBM, 8, 2, 2, 1),  # ibmPduOutletEntry
        {2: columns.name(), 11: columns.command({0: Act.OFF, 1: Act.ON}, reads=state)},
    )


def _teltronix(columns: Columns) -> Instances:
    state = columns.state(off=1, on=2)
    return columns.table((*TELTRONIX, 1, 2, 2, 1), {4: columns.command({1: Act.OFF, 2: Act.ON}, reads=state)})


def _gude(columns: Columns) -> Instances:
    product: Oid = (*GUDE, GUDE_8226, 1)
    state = columns.state(off=0, on=1)
    return (
        {(*product, 3, 1, 1, 0): columns.count()}
        | columns.table(
            (*product, 3, 1, 2, 1),  # epc…PortEntry
            {1: columns.number(), 2: columns.name(), 3: columns.command({0: Act.OFF, 1: Act.ON}, reads=state)},
        )
        | columns.table((*product, 5, 5, 2, 1), {4: columns.watts()})
    )


MODELS = (
    PduModel("baytech", BAYTECH, "BayTech RPC", _baytech),
    PduModel("tripplite-padm", (*TRIPP_LITE, 1), "Tripp Lite PDUMH20NET LX", _padm),
    PduModel("dell-rpdu", (*DELL, 3, 1), "Dell Switched Rack PDU", _dell),
    PduModel("wti", (*WTI, 6, 8), "WTI NPS", _wti),
    PduModel("ibm-ipdu", IBM, "IBM PDU", _ibm),
    PduModel("teltronix", TELTRONIX, "Teltronix PDU", _teltronix),
    PduModel("gude-epc", (*GUDE, GUDE_8226), "Expert Power Control 8226", _gude),
)
