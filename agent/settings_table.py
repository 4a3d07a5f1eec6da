"""What all tables of the agent's settings have in common."""

from pydantic import BaseModel, ConfigDict

Key = tuple[str, ...]


class Table(BaseModel):
    """Base of the tables: a key that nobody knows is an error, because it is a typo."""

    model_config = ConfigDict(extra="forbid", frozen=True)
