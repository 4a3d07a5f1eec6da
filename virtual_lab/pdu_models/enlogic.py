"""nLogic's PDU under other names: Panduit G5 (enterprise 19536) and Enlogic (ENLOGIC-PDU-MIB, enterprise 38446)."""

from virtual_lab.pdu_models.eaton import nlogic_tables
from virtual_lab.snmp_pdu_model import ENTERPRISES, Act, Columns, Instances, Oid, PduModel

PANDUIT: Oid = (*ENTERPRISES, 19536, 10, 1)
ENLOGIC: Oid = (*ENTERPRISES, 38446, 1)


def _panduit(columns: Columns) -> Instances:
    return nlogic_tables(columns, PANDUIT)


def _enlogic(columns: Columns) -> Instances:
    def index(outlet: int) -> Oid:
        return (1, outlet)  # unit, outlet

    delayed = {3: Act.DELAYED_OFF, 4: Act.DELAYED_ON, 5: Act.REBOOT, 6: Act.DELAYED_REBOOT}
    return (
        {(*ENLOGIC, 5, 1, 0): columns.count()}  # pduOutletSwitchedTableSize
        | columns.table((*ENLOGIC, 5, 2, 1), {2: columns.name()}, index)  # pduOutletSwitchedName
        | columns.table(
            (*ENLOGIC, 5, 4, 1),  # pduOutletSwitchedStatusEntry
            {2: columns.number(), 3: columns.name(), 4: columns.state(off=0, on=1)},
            index,
        )
        | columns.table(
            (*ENLOGIC, 5, 5, 1),  # pduOutletSwitchedControlEntry
            {2: columns.number(), 3: columns.name(), 4: columns.command({1: Act.OFF, 2: Act.ON} | delayed)},
            index,
        )
    )


MODELS = (
    PduModel("panduit-g5", PANDUIT, "Panduit G5 SmartZone PDU", _panduit),
    PduModel("enlogic", ENLOGIC, "Enlogic PDU", _enlogic),
)
