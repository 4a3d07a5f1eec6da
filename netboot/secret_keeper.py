"""Boot secrets that are stored before they leave."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable

from netboot.boot_secrets import BootSecrets, Verdict
from netboot.errors import SecretsNotSavedError

log = logging.getLogger(__name__)

SaveSecrets = Callable[[dict[str, object]], Awaitable[None] | None]


class SecretKeeper:
    """The secrets of one board network. `save` gets the whole state as plain JSON values; it may be a plain function or
    a coroutine function, and it has returned before a new secret is handed out.

    Raises:
        SecretsStateError: `state` cannot be read.
    """

    def __init__(self, state: dict[str, object] | None, save: SaveSecrets) -> None:
        self._secrets = BootSecrets(state)
        self._save = save
        self._saves_later = inspect.iscoroutinefunction(save)
        self._unsaved = False
        self._saving = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def fetch(self, board: str) -> str:
        """The secret for the board's next boot, stored.

        Raises:
            SecretsNotSavedError: it could not be stored, and must not leave.
        """
        secret, minted = self._secrets.fetch(board)
        self._unsaved = self._unsaved or minted
        await self._store_now()
        return secret

    def good(self, board: str) -> tuple[str, ...]:
        """The secrets that prove this board's boot now."""
        return self._secrets.good(board)

    def new_boot(self, board: str) -> None:
        """The board lost its power: a secret that was fetched before and not used is void."""
        if self._secrets.new_boot(board):
            self._store()

    def verify(self, board: str, boot_id: str, proof: str, message: bytes) -> Verdict:
        """Judge a proof.

        Raises:
            OSError: what the plain function `save` raised; the verdict stands in memory.
        """
        verdict = self._secrets.verify(board, boot_id, proof, message)
        if verdict is Verdict.OK:
            self._store()
        return verdict

    async def close(self) -> None:
        """Store what is not stored."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._unsaved:
            await self._store_now()

    def _store(self) -> None:
        self._unsaved = True
        if not self._saves_later:
            self._save(self._secrets.state())
            self._unsaved = False
            return
        task = asyncio.get_running_loop().create_task(self._store_and_log(), name="netboot-save-secrets")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store_and_log(self) -> None:
        try:
            await self._store_now()
        except SecretsNotSavedError:
            log.exception("the boot secrets stay unsaved until the next file is fetched")

    async def _store_now(self) -> None:
        """Store the state if it has changed; on return it is stored, also where another task did it."""
        async with self._saving:
            if not self._unsaved:
                return
            self._unsaved = False
            try:
                result = self._save(self._secrets.state())
                if result is not None:
                    await result
            except Exception as error:  # whatever the owner's store raises, the secret must not leave
                self._unsaved = True
                raise SecretsNotSavedError(f"cannot store the boot secrets: {error}") from error
