"""The value of a board's label: what jobs may ask for."""

from typing import Annotated

from pydantic import GetCoreSchemaHandler, GetPydanticSchema
from pydantic_core import CoreSchema, core_schema


def _one_problem(source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Says one thing about a label of a wrong type, where pydantic would name each branch of the union as a key."""
    return core_schema.custom_error_schema(
        handler(source), "label", custom_error_message="Input should be text, a number, true or false"
    )


Label = Annotated[str | int | float | bool, GetPydanticSchema(_one_problem)]
