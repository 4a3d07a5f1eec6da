"""Any device or service with a REST interface, described wholly by settings: settings and kind."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.kinds.http_settings import HEADER_NAME, HttpSettings, at_most_one, checked_url
from agent.power.settings import NonEmpty, PowerSettings, Seconds, TimeoutS

OUTLET_PLACEHOLDER = "{outlet}"
OUTLET_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""What an outlet may be called, so that it means the same in a URL, in JSON and in a JSON pointer."""
POINTER = re.compile(r"(/([^~/]|~[01])*)*")
"""RFC 6901, section 3."""

Scalar = bool | int | float | str


def _url_template(url: str) -> str:
    bare = url.replace(OUTLET_PLACEHOLDER, "0")
    if "{" in bare or "}" in bare:
        raise ValueError(f"{url!r}: only {OUTLET_PLACEHOLDER} may stand in braces")
    checked_url(bare)
    return url


def _pointer(pointer: str) -> str:
    if not POINTER.fullmatch(pointer):
        raise ValueError(f"{pointer!r} is no JSON pointer: each step begins with /, and ~ and / in it are ~0 and ~1")
    return pointer


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header")
        if name.lower() in {"authorization", "proxy-authorization", "cookie"}:
            raise ValueError(f"{name} is a secret: name it by auth, or in secret_headers")
        if not value.isprintable():
            raise ValueError(f"header {name}: line ends and control characters are not allowed")
    return headers


UrlTemplate = Annotated[str, AfterValidator(_url_template)]
Pointer = Annotated[str, AfterValidator(_pointer)]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]


class RestRequest(PowerSettings):
    """One request. `{outlet}` is replaced in `url` and `body`."""

    url: UrlTemplate
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    body: Annotated[str, Field(max_length=65536)] | None = None
    """Sent as application/json unless `headers` name another Content-Type."""
    headers: Headers = Field(default_factory=dict)

    @property
    def names_outlet(self) -> bool:
        return OUTLET_PLACEHOLDER in self.url or OUTLET_PLACEHOLDER in (self.body or "")


class RestState(RestRequest):
    """How the state is read."""

    pointer: Pointer | None = None
    """JSON pointer (RFC 6901) to the value; `{outlet}` is replaced. Without it the whole body is the value, as text."""
    on_values: Annotated[tuple[Scalar, ...], Field(min_length=1)] = (True, 1, "1", "on", "ON", "true")
    off_values: Annotated[tuple[Scalar, ...], Field(min_length=1)] = (False, 0, "0", "off", "OFF", "false")
    unknown_values: tuple[Scalar, ...] = ("unknown", "unavailable")
    """Values by which the device says that it does not know; JSON's null is always one. Anything else is an error."""

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        for value in self.on_values:
            if any(same(value, other) for other in self.off_values):
                raise ValueError(f"{value!r} means on and off")
        return self


class RestWatts(PowerSettings):
    """How watts are read: from the answer to `state`, or from a url of their own."""

    url: UrlTemplate | None = None
    pointer: Pointer
    """To a number, or a text that is one; `{outlet}` is replaced."""
    scale: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    """What the number is multiplied with: 0.001 for milliwatts."""


class SecretSource(PowerSettings):
    """Where a secret is."""

    file: Path | None = None
    env: NonEmpty | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("a secret comes from exactly one of file and env")
        return self


class RestSettings(HttpSettings):
    """A device or service that is switched by one HTTP request each."""

    driver: Literal["rest"]
    on: RestRequest
    off: RestRequest
    state: RestState | None = None
    """Without it power is unknown for ever, and nothing is claimed as verified."""
    watts: RestWatts | None = None
    headers: Headers = Field(default_factory=dict)
    """Sent with every request."""
    secret_headers: dict[NonEmpty, SecretSource] = Field(default_factory=dict)
    auth: Literal["none", "basic", "digest", "bearer"] = "none"
    username: NonEmpty | None = None
    password_file: Path | None = None
    password_env: NonEmpty | None = None
    token_file: Path | None = None
    token_env: NonEmpty | None = None
    outlets: tuple[NonEmpty, ...] = ()
    """The outlets there are. Without it any name is taken where a request has `{outlet}`, and only `1` where none
    has."""
    verify_deadline_s: TimeoutS = 10.0
    settle_s: Seconds = 1.0

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.on.names_outlet != self.off.names_outlet:
            raise ValueError("{outlet} stands in only one of on and off: the other would switch something else")
        if self.watts is not None and self.watts.url is None and self.state is None:
            raise ValueError("watts needs url, as there is no state to read them from")
        for name in self.outlets:
            if not OUTLET_NAME.fullmatch(name):
                raise ValueError(f"outlet {name!r}: letters, digits and _ . : - only")
        for name in self.secret_headers:
            if not HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header")
        return self

    @model_validator(mode="after")
    def _who(self) -> Self:
        password = at_most_one("password", self.password_file, self.password_env)
        token = at_most_one("token", self.token_file, self.token_env)
        named = self.auth in {"basic", "digest"}
        if (self.username is not None) != named or password != named:
            raise ValueError(f"auth = {self.auth!r} " + ("needs" if named else "takes no") + " username and password")
        if token != (self.auth == "bearer"):
            wants = "takes no token" if token else "needs token_file or token_env"
            raise ValueError(f"auth = {self.auth!r} {wants}")
        return self


def same(value: object, other: object) -> bool:
    """Whether two JSON scalars are the same: 1 is 1.0, and is neither true nor "1"."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other


KIND = DriverKind(
    name="rest",
    settings=RestSettings,
    make="agent.power.drivers.rest:make",
    support=lambda: (
        DeviceSupport(
            "any REST interface described by settings (ESPHome, Home Assistant, Tasmota over HTTP, Shelly Gen 1, "
            "Server Technology JAWS, labgrid's `rest`)",
            read_back="by its `state` request; else power stays unknown",
            verified_by="virtual HTTP service",
            metering="by its `watts` pointer",
            discovery="by a person: `outlets`",
            source="RFC 9110, RFC 6901; the interface's own documentation",
        ),
    ),
)
