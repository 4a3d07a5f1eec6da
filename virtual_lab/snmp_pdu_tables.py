"""The MIB of the virtual PDU: the instances of its models, in lexicographical order."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from virtual_lab.pdu_models import MODELS
from virtual_lab.snmp_pdu_model import SYSTEM, Columns, Instance, Instances, Oid, Outlets, RefusedSetError, Value

__all__ = ["FAMILY_NAMES", "Oid", "PduTables", "RefusedSetError", "Value"]

FAMILY_NAMES = ("apc-rpdu2", "apc-rpdu", "apc-spdu")
"""APC's three tables, which a real AP8xxx answers all at once; the first one gives the sysObjectID."""


class PduTables:
    """All instances of one PDU.

    Args:
        families: names of `pdu_models.MODELS`; the system group is that of the first one.

    Raises:
        ValueError: there is no such model.
    """

    def __init__(self, outlets: Outlets, families: Iterable[str]) -> None:
        self._outlets = outlets
        wanted = list(families)
        chosen = [name for name in FAMILY_NAMES if name in wanted] + [n for n in wanted if n not in FAMILY_NAMES]
        if unknown := [name for name in chosen if name not in MODELS]:
            raise ValueError(f"no model of a virtual PDU: {', '.join(unknown)}; there are {', '.join(sorted(MODELS))}")
        models = [MODELS[name] for name in chosen]
        columns = Columns(outlets)
        instances: Instances = {
            (*SYSTEM, 1, 0): columns.fixed(models[0].sys_descr if models else "boardhand virtual PDU"),
            (*SYSTEM, 2, 0): columns.fixed(models[0].sys_object_id if models else (0, 0)),
            (*SYSTEM, 5, 0): columns.fixed("virtual-pdu"),
        }
        for model in models:
            instances.update(model.build(columns))
        self._instances = dict(sorted(instances.items()))
        self._order = list(self._instances)

    def get(self, oid: Oid) -> Value | None:
        """The value of an instance, or None where there is none."""
        instance = self._instances.get(oid)
        return None if instance is None or self._is_missing(instance) else instance.read()

    def next(self, oid: Oid) -> tuple[Oid, Value] | None:
        """The first instance after `oid`, or None at the end of the MIB."""
        for at in range(bisect_right(self._order, oid), len(self._order)):
            instance = self._instances[self._order[at]]
            if not self._is_missing(instance):
                return self._order[at], self._faulty(instance)
        return None

    def answer(self, oid: Oid) -> tuple[Oid, Value | None]:
        """What a GET is answered with, faults and all."""
        instance = self._instances.get(oid)
        if instance is None or self._is_missing(instance):
            return oid, None
        if self._outlets.wrong_index and instance.outlet is not None:
            return self.next(oid) or (oid, None)
        return oid, self._faulty(instance)

    def set(self, oid: Oid, value: Value) -> None:
        """Carry out a SET of one binding.

        Raises:
            RefusedSetError: with the error-status that the PDU answers.
        """
        self.set_all([(oid, value)])

    def set_all(self, bindings: Sequence[tuple[Oid, Value]]) -> list[tuple[Oid, Value]]:
        """Carry out a SET, all bindings or none (RFC 3416, section 4.2.5); returns the bindings of the answer.

        Raises:
            RefusedSetError: with the error-status that the PDU answers.
        """
        actions = []
        for at, (oid, value) in enumerate(bindings):
            try:
                actions.append(self._checked(oid, value))
            except RefusedSetError as refusal:
                refusal.at = at
                raise
        self._outlets.carry_out(actions)
        if not self._outlets.wrong_index:
            return list(bindings)
        return [((self.next(oid) or (oid, value))[0], value) for oid, value in bindings]

    def _checked(self, oid: Oid, value: Value) -> Callable[[], None]:
        instance = self._instances.get(oid)
        if instance is None or self._is_missing(instance):
            raise RefusedSetError("noCreation")
        if instance.write is None:
            raise RefusedSetError("notWritable")
        if type(value) is not instance.accepts:
            raise RefusedSetError("wrongType")
        return instance.write(value)

    def _is_missing(self, instance: Instance) -> bool:
        return instance.outlet is not None and instance.outlet in self._outlets.missing

    def _faulty(self, instance: Instance) -> Value:
        value = instance.read()
        if self._outlets.wrong_type and instance.outlet is not None:
            return str(value) if isinstance(value, int) else 1
        return value
