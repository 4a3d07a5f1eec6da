"""Run by labgrid's own Python: `labgrid_places.py HOST:PORT PLACES ROUNDS`. Makes places for the groups g1 to gN that
an exporter offers, lists and acquires them by the coordinator's own protocol, and prints the times in ms as JSON."""

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

# Not by import statements: labgrid and its gRPC are no dependencies of ours, and a house test reads those.
grpc = importlib.import_module("grpc")
pb = importlib.import_module("labgrid.remote.generated.labgrid_coordinator_pb2")
pb_grpc = importlib.import_module("labgrid.remote.generated.labgrid_coordinator_pb2_grpc")
PATIENCE_S = 60.0


class Client:
    """A client's session: the coordinator knows its caller by an open stream."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub
        self.out: asyncio.Queue[object] = asyncio.Queue()
        self.resources: set[str] = set()
        self.news = asyncio.Event()

    async def _requests(self) -> AsyncIterator[object]:
        while True:
            yield await self.out.get()

    async def listen(self) -> None:
        async for message in self.stub.ClientStream(self._requests()):
            for update in message.updates:
                if update.WhichOneof("kind") == "resource":
                    self.resources.add(update.resource.path.group_name)
            self.news.set()


async def timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000


async def acquire_all(stub: Any, names: list[str], *, together: bool) -> None:
    requests = [pb.AcquirePlaceRequest(placename=name) for name in names]
    if together:
        await asyncio.gather(*(stub.AcquirePlace(request) for request in requests))
        return
    for request in requests:
        await stub.AcquirePlace(request)


async def connect_and_list(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await pb_grpc.CoordinatorStub(channel).GetPlaces(pb.GetPlacesRequest())


async def main() -> None:
    address, places, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    names = [f"p{n}" for n in range(1, places + 1)]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.CoordinatorStub(channel)
        client = Client(stub)
        listening = asyncio.create_task(client.listen())
        client.out.put_nowait(pb.ClientInMessage(startup=pb.StartupDone(version="bench", name="host/bench")))
        client.out.put_nowait(pb.ClientInMessage(subscribe=pb.Subscribe(all_resources=True)))
        async with asyncio.timeout(PATIENCE_S):
            while len(client.resources) < places:
                client.news.clear()
                await client.news.wait()
        for n, name in enumerate(names, 1):
            await stub.AddPlace(pb.AddPlaceRequest(name=name))
            await stub.AddPlaceMatch(pb.AddPlaceMatchRequest(placename=name, pattern=f"*/g{n}/*"))
        listing = [await timed(stub.GetPlaces(pb.GetPlacesRequest())) for _ in range(rounds * 10)]
        fresh = [await timed(connect_and_list(address)) for _ in range(rounds * 10)]
        times: dict[str, list[float]] = {"one by one": [], "at once": []}
        for _ in range(rounds):
            for how, values in times.items():
                values.append(await timed(acquire_all(stub, names, together=how == "at once")))
                for name in names:
                    await stub.ReleasePlace(pb.ReleasePlaceRequest(placename=name))
        listening.cancel()
    print(json.dumps({"list": listing, "connect and list": fresh, **times}))


asyncio.run(main())
