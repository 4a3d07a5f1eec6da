"""Whose certificates are good: the system's authorities, or the one that a setting names."""

import ssl
from pathlib import Path


def trusting(ca_file: Path | str | None) -> ssl.SSLContext:
    """A client's context that checks the server's certificate and name: against `ca_file`, or the system's authorities.

    From 3.13 on Python asks more of certificates than before (VERIFY_X509_STRICT): extensions that RFC 5280, section
    4.2.1, demands, and that certificates made with OpenSSL before 3.2 often lack: "Missing Authority Key Identifier".
    Nobody is kept out by it, and a farm with an authority of its own would stand still after an upgrade of its system.
    So for an authority that is named here the same certificates are good on every Python; for the system's, Python's
    choice stands.

    Raises:
        OSError: `ca_file` cannot be read or used (`ssl.SSLError` is one).
    """
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    if ca_file is not None:
        context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    return context
