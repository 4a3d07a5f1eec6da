"""What things on the farm may be called, as types of pydantic's models: ids, MAC addresses and the topic prefix."""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from wire.ids import ID_PATTERN, PREFIX_PATTERN, is_id, mac_topic_level, normal_mac

__all__ = ["ID_PATTERN", "PREFIX_PATTERN", "Id", "Mac", "Prefix", "is_id", "mac_topic_level", "normal_mac"]

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Mac = Annotated[str, AfterValidator(normal_mac)]
Prefix = Annotated[str, StringConstraints(pattern=PREFIX_PATTERN)]
