"""The models of virtual PDUs and PoE switches, one small module per vendor, by the name of their family."""

from virtual_lab.pdu_models import (
    apc,
    cyberpower,
    eaton,
    enlogic,
    hpe,
    others,
    poe,
    raritan,
    scalars,
    servertech,
    vertiv,
)
from virtual_lab.snmp_pdu_model import PduModel

_MODULES = (apc, cyberpower, eaton, enlogic, hpe, others, poe, raritan, scalars, servertech, vertiv)
MODELS: dict[str, PduModel] = {model.name: model for module in _MODULES for model in module.MODELS}
