"""APC: the outlet tables of PowerNet-MIB, enterprise 318."""

from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Columns, Instances, Oid, PduModel

APC: Oid = (*ENTERPRISES, 318)
PRODUCTS: Oid = (*APC, 1, 3, 4)
HARDWARE: Oid = (*APC, 1, 1)
CARD = "APC Web/SNMP Management Card (MB:v4.1.0 PF:v6.7.2 PN:apc_hw05_aos_672.bin)"

ON_OFF_REBOOT = {1: Act.ON, 2: Act.OFF, 3: Act.REBOOT}


def _spdu(columns: Columns) -> Instances:
    master: Oid = (*HARDWARE, 4, 4)
    state = columns.state(on=1, off=2)
    return {(*master, 1, 0): columns.count()} | columns.table(  # sPDUOutletControlTableSize
        (*master, 2, 1),  # sPDUOutletControlEntry
        {
            1: columns.number(),
            2: columns.pending(yes=1, no=2),  # sPDUOutletPending: yes(1), no(2)
            3: columns.command(  # sPDUOutletCtl; reads as the outlet's state
                ON_OFF_REBOOT | {5: Act.DELAYED_ON, 6: Act.DELAYED_OFF, 7: Act.DELAYED_REBOOT}, reads=state
            ),
            4: columns.name(),
        },
    )


def _masterswitch_plus(columns: Columns) -> Instances:
    plus: Oid = (*HARDWARE, 6)

    def index(outlet: int) -> Oid:
        return (1, 1, outlet)  # unit, power source, outlet

    return columns.table(
        (*plus, 5, 1, 1),  # sPDUOutletControlMSPEntry
        {
            1: columns.same(1),
            3: columns.number(),
            4: columns.name(),
            # immediate on(1), delayed on(2), immediate off(3), graceful reboot, shutdown and override from 4 on
            5: columns.command({1: Act.ON, 2: Act.DELAYED_ON, 3: Act.OFF}, reads=columns.state(on=1, off=2)),
        },
        index,
    ) | columns.table(
        (*plus, 7, 1, 1),  # sPDUOutletStatusMSPEntry
        {1: columns.same(1), 3: columns.number(), 4: columns.name(), 5: columns.state(on=1, off=2)},
        index,
    )


def _rpdu(columns: Columns) -> Instances:
    rpdu: Oid = (*HARDWARE, 12)
    delayed = {4: Act.DELAYED_ON, 5: Act.DELAYED_OFF, 6: Act.DELAYED_REBOOT, 7: Act.CANCEL}
    return (
        {(*rpdu, 1, 8, 0): columns.count()}  # rPDUIdentDeviceNumOutlets
        | columns.table(
            (*rpdu, 3, 3, 1, 1),  # rPDUOutletControlEntry
            {1: columns.number(), 2: columns.name(), 4: columns.command(ON_OFF_REBOOT | delayed)},
        )
        | columns.table(
            (*rpdu, 3, 5, 1, 1),  # rPDUOutletStatusEntry
            {
                1: columns.number(),
                2: columns.name(),
                4: columns.state(on=1, off=2),  # outletStatusOn(1), outletStatusOff(2)
                5: columns.pending(yes=1, no=2),  # pending(1), noCommandPending(2)
            },
        )
    )


def _rpdu2(columns: Columns) -> Instances:
    rpdu2: Oid = (*HARDWARE, 26)
    delayed = {5: Act.DELAYED_ON, 6: Act.DELAYED_OFF, 7: Act.DELAYED_REBOOT, 8: Act.CANCEL}
    return (
        {
            (*rpdu2, 4, 2, 1, 4, 1): columns.count(),  # rPDU2DevicePropertiesNumOutlets
            (*rpdu2, 4, 2, 1, 5, 1): columns.count(),  # …NumSwitchedOutlets
        }
        | columns.table(
            (*rpdu2, 9, 2, 3, 1),  # rPDU2OutletSwitchedStatusEntry
            {
                1: columns.number(),
                2: columns.same(1),
                3: columns.name(),
                4: columns.number(),
                5: columns.state(off=1, on=2),  # the reverse of the command
                6: columns.pending(yes=1, no=2),  # pending(1), notPending(2)
            },
        )
        | columns.table(
            (*rpdu2, 9, 2, 4, 1),  # rPDU2OutletSwitchedControlEntry
            {
                1: columns.number(),
                2: columns.same(1),
                3: columns.name(),
                4: columns.number(),
                5: columns.command(ON_OFF_REBOOT | delayed),  # immediateOn(1), immediateOff(2)
            },
        )
        | columns.table((*rpdu2, 9, 4, 3, 1), {7: columns.watts()})  # rPDU2OutletMeteredStatusPower, W
    )


def _epdu(columns: Columns) -> Instances:
    easy: Oid = (*HARDWARE, 30)
    return (
        {(*easy, 5, 0): columns.count()}
        | columns.table((*easy, 6, 1, 1), {1: columns.number(), 4: columns.state(off=1, on=2)})
        | columns.table(
            (*easy, 6, 2, 1),
            {1: columns.number(), 2: columns.name(), 4: columns.command({1: Act.ON, 2: Act.OFF})},
        )
    )


MODELS = (
    PduModel("apc-rpdu2", (*PRODUCTS, 6), CARD, _rpdu2),
    PduModel("apc-rpdu", (*PRODUCTS, 5), CARD, _rpdu),
    PduModel("apc-spdu", (*PRODUCTS, 2), CARD, _spdu),
    PduModel("apc-masterswitch-plus", (*PRODUCTS, 4), CARD, _masterswitch_plus),
    PduModel("apc-epdu", (*PRODUCTS, 9), "APC Easy PDU", _epdu),
)
