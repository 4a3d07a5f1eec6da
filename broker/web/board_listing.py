"""`GET /boards`: each board is checked and encoded when it has changed, not for each reader."""

from collections.abc import Iterable

from broker.web.farm_mirror import Document
from broker.web.models import BoardView


class BoardListing:
    """Keeps boards' documents with what they are as JSON; `FarmMirror` makes a new document when a board changes."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Document, bytes]] = {}

    def encoded(self, documents: Iterable[Document]) -> bytes:
        """A JSON list of `BoardView`."""
        kept: dict[int, tuple[Document, bytes]] = {}
        for document in documents:
            # By identity: it is held here, so that no other document can have its id meanwhile.
            known = self._kept.get(id(document))
            kept[id(document)] = known or (document, _encoded(document))
        self._kept = kept
        return b"[" + b",".join(line for _, line in kept.values()) + b"]"


def _encoded(document: Document) -> bytes:
    return BoardView.model_validate(document, strict=False).model_dump_json().encode()
