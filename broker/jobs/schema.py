"""The JSON schema of a job file, for editors and CI: made from the models that check it, with the short forms added."""

import json

from broker.jobs.spec import JobSpec

Json = dict[str, object]
ID = "https://boardhand.invalid/job.schema.json"
"""A name, not an address: the file lies in docs/."""
TITLE = "boardhand job"
_WORD = {"type": ["string", "number", "boolean"]}
_LABEL: Json = {
    "description": "A value, a list of which one will do, or a comparison as '>= 2048'.",
    "anyOf": [_WORD, {"type": "array", "items": _WORD, "minItems": 1}],
}
# Text by its place, whatever YAML makes of it: `steps: [true]`, `env: {MODE: 0755}`.
_TEXT = {"type": ["string", "number", "boolean"]}


def document() -> Json:
    """The schema, JSON Schema 2020-12."""
    made: Json = JobSpec.model_json_schema(mode="validation")
    parts = _objects(made, "$defs")
    own = _objects(made, "properties")
    own["labels"] = {**own["labels"], "additionalProperties": _LABEL}
    own["env"] = _env(own["env"])
    own["steps"]["items"] = {"anyOf": [_TEXT, {"$ref": "#/$defs/StepSpec"}]}
    _short(own, "boot", {"type": "string"})
    _roles(made, parts)
    _short(own, "artifacts", {"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1})
    file = _objects(parts["FileSpec"], "properties")
    own["name"]["type"] = file["mode"]["type"] = _TEXT["type"]
    file["text"]["anyOf"] = [_TEXT, *_branches(file["text"])]
    for part, keys in (("StepSpec", ["output"]), ("SuccessSpec", ["steps", "output", "not_output"])):
        for key in keys:
            _short(_objects(parts[part], "properties"), key, {"type": "string"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": ID, "title": TITLE, **{
        key: value for key, value in made.items() if key != "title"
    }}  # fmt: skip


def _roles(made: Json, parts: dict[str, Json]) -> None:
    """A group's roles are written as the job itself; where they have steps, the job needs none."""
    role = _objects(parts["RoleSpec"], "properties")
    role["labels"] = {**role["labels"], "additionalProperties": _LABEL}
    role["env"] = _env(role["env"])
    steps = _branches(role["steps"])[0]
    if isinstance(steps, dict):
        steps["items"] = {"anyOf": [_TEXT, {"$ref": "#/$defs/StepSpec"}]}
    _short(role, "boot", {"type": "string"})
    made["required"] = ["name"]
    made["anyOf"] = [{"required": ["steps"]}, {"required": ["group"]}]


def text() -> str:
    """`document()` as it stands in docs/job.schema.json."""
    return json.dumps(_settled(document()), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _objects(node: Json, key: str) -> dict[str, Json]:
    found = node[key]
    if not isinstance(found, dict):
        raise TypeError(f"{key} is no object")
    return found


def _env(given: Json) -> Json:
    """Values as they were written, names as patterns say."""
    patterns = given.pop("patternProperties", None)
    names = list(patterns) if isinstance(patterns, dict) else []
    return {**given, "patternProperties": dict.fromkeys(names, _TEXT), "additionalProperties": False}


def _short(keys: dict[str, Json], key: str, *forms: Json) -> None:
    """Let `key` be written in a shorter form as well."""
    whole = keys[key]
    about: Json = {name: whole.pop(name) for name in ("description", "default", "title") if name in whole}
    keys[key] = {**about, "anyOf": [*forms, *_branches(whole)]}


def _branches(node: Json) -> list[object]:
    branches = node.get("anyOf")
    return branches if isinstance(branches, list) else [node]


def _settled(node: object) -> object:
    """The same JSON whichever release of pydantic wrote it: they differ in `0` and `0.0`, and in titles."""
    if isinstance(node, dict):
        items = {key: _settled(value) for key, value in node.items()}
        return {key: value for key, value in items.items() if key != "title" or value == TITLE}
    if isinstance(node, list):
        return [_settled(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node
