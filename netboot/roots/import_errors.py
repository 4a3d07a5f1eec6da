"""Errors of an import that a caller may treat in a way of their own; the others are in `errors`."""

from netboot.roots.errors import SourceError


class SourceTooLargeError(SourceError):
    """The source would become larger than the import allows: raise the limit if you trust it."""


class ChecksumError(SourceError):
    """The source is not the file whose SHA-256 was given: get it again, or mend the checksum."""
