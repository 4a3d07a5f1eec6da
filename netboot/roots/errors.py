"""Errors of roots, by what the caller does next. Where nothing else is said, the store is as it was before."""


class RootError(Exception):
    """Something about roots failed; the message names the root, board or file and says what to do."""


class SourceError(RootError):
    """What was to be imported is damaged or of no known kind: mend it, or give another."""


class UnsafeSourceError(SourceError):
    """The source tries to write or to link outside of its root. Do not trust where it came from."""


class LossError(RootError):
    """The import would lose owners, devices or attributes without a word: run it as root, or allow the loss."""


class ToolMissingError(RootError):
    """A program is not installed; the message names the package."""


class NoSuchRootError(RootError):
    """The store has no root of that name, or no board of that name has a view."""


class RootExistsError(RootError):
    """A root is never changed: remove it first, or take another name."""


class RootInUseError(RootError):
    """A board runs from it: switch the board off, or release its view."""


class StoreError(RootError):
    """The store's folder cannot be used: mend its rights or its place."""


class StoreFullError(RootError):
    """No room in the store: make some, and import again. `needed_bytes` is None where nobody knows it."""

    def __init__(self, message: str, *, needed_bytes: int | None, free_bytes: int) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class DamagedRootError(RootError):
    """A root's record cannot be read, or its files are not what was imported: import it anew."""


class ViewError(RootError):
    """A board's view cannot be mounted or unmounted; the message has the kernel's reason."""


class IdentityError(RootError):
    """A board's identity cannot be made, kept or put into its view."""


class EngineError(RootError):
    """The NFS server does not do what it was told; the message has its own words. Try again when it is mended."""


class RefusedExportError(EngineError):
    """The NFS server refuses some exports: `names`, as far as it tells; it serves the others."""

    def __init__(self, message: str, names: list[str]) -> None:
        super().__init__(message)
        self.names = names
