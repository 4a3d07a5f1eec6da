"""One TFTP port served by as many workers as the host has cores to spare; to their owner they are one."""

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from netboot.tftp_process import Answer, Done, Question, TftpProcess, WorkerConfig, WorkerRefusal

MAX_WORKERS = 4  # one saturates a 1 Gbit/s wire with a third of a core


def default_workers(cores: int) -> int:
    """One for every two cores: board control, MQTT and the interrupts of the network card want the others."""
    return max(1, min(MAX_WORKERS, cores // 2))


class TftpWorkers:
    """`TftpProcess`, several times over. The kernel gives all packets of one client port to one worker, so repeated
    requests find their transfer. When a worker dies, its clients are served by the others until it is back."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        answer: Callable[[Question], Awaitable[Answer]],
        on_done: Callable[[Done], None],
        on_refusal: Callable[[WorkerRefusal], None],
    ) -> None:
        count = config.workers if config.workers is not None else default_workers(len(os.sched_getaffinity(0)))
        self._config = replace(config, workers=count, shared_port=count > 1)
        self._hooks = (answer, on_done, on_refusal)
        self._workers = [self._worker(self._config, lane) for lane in range(count)]

    def _worker(self, config: WorkerConfig, lane: int) -> TftpProcess:
        answer, on_done, on_refusal = self._hooks
        config = replace(config, claim_port=lane == 0)
        return TftpProcess(config, answer=answer, on_done=on_done, on_refusal=on_refusal, lane=lane)

    @property
    def counters(self) -> Counter[str]:
        """What all workers counted, over all restarts."""
        return sum((worker.counters for worker in self._workers), Counter())

    @property
    def restarts(self) -> int:
        """How often a worker had to be started again."""
        return sum(worker.restarts for worker in self._workers)

    @property
    def pump(self) -> str:
        """Which form sends the packets: `native` or `python`; empty before the start."""
        return self._workers[0].pump

    @property
    def pid(self) -> int | None:
        """The first worker's process id, None while it is being started again."""
        return self._workers[0].pid

    @property
    def pids(self) -> list[int]:
        """The process ids of all workers that run."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    async def start(self) -> int:
        """Start all workers; returns the port they serve.

        Raises:
            TftpStartError: one did not come up; none is left running.
        """
        port = await self._workers[0].start()
        try:
            for lane in range(1, len(self._workers)):
                self._workers[lane] = self._worker(replace(self._config, port=port), lane)
                await self._workers[lane].start()
        except BaseException:
            await self.stop()
            raise
        return port

    async def stop(self) -> None:
        """End all workers and wait for them. May be called twice."""
        for worker in self._workers:
            await worker.stop()
