"""MultiNode calls of the contract, under the names by which the broker knows them."""

from wire.multinode import CALL_TAIL as CALL_TAIL  # noqa: PLC0414  # handed on
from wire.multinode import MAX_ANSWER_LETTERS as MAX_ANSWER_LETTERS  # noqa: PLC0414  # handed on
from wire.multinode import WorkAnswer as WorkAnswer  # noqa: PLC0414  # handed on
from wire.multinode import WorkCall as WorkCall  # noqa: PLC0414  # handed on
