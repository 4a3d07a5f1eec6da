"""What can go wrong when a file is fetched, by what the caller does next. Messages name the URL without password and
query, for these may be secret."""


class FetchError(Exception):
    """A file could not be had."""


class FetchUrlError(FetchError, ValueError):
    """URL or checksum cannot be used: mend the job or profile."""


class FetchRefusedError(FetchError):
    """The origin says no (4xx, endless redirects, a certificate that is not trusted): mend the URL or the origin."""


class FetchForbiddenError(FetchError):
    """Nothing may be fetched from there: name another place, or allow it in the settings."""


class FetchUnreachableError(FetchError):
    """The origin does not answer, or not to the end, after several tries: try again later."""


class FetchChecksumError(FetchError):
    """What the origin has is not what was asked for: mend the checksum, or the file there."""


class FetchTooLargeError(FetchError):
    """The file is larger than what is allowed, or than the cache: raise the limit, or boot something smaller."""


class FetchNoRoomError(FetchError):
    """The disk is full, or all of the cache is held by boots under way: make room, or try again later."""
