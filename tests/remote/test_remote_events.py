"""Following a job's events through trouble."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload.remote.events import Entry, Numbers
from jupyter_rayoffload.remote.signing import Signer, Tampered
from jupyter_rayoffload.remote.store import Store, StoreAddress, follow, open_reader
from tests.remote.redis_fixture import KEY
from tests.servers import RedisServer

Open = Callable[..., Store]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 12)), max_size=40))
def test_each_writer_s_numbers_rise_and_all_that_is_missing_is_counted(
    arrivals: list[tuple[str, int]],
) -> None:
    numbers = Numbers(whole=True)
    admitted = [numbers.admit(Entry("0-1", writer, number, [])) for writer, number in arrivals]
    for writer in "ab":
        seen = [entry for entry in admitted if entry and entry.writer == writer]
        assert [e.number for e in seen] == sorted({e.number for e in seen})
        if seen:
            assert len(seen) + sum(e.lost for e in seen) == seen[-1].number
    firsts: dict[str, int] = {}
    for (writer, number), entry in zip(arrivals, admitted, strict=True):
        assert (entry is not None) == (number > firsts.get(writer, 0))
        firsts[writer] = max(number, firsts.get(writer, 0))


class Follower:
    """Follows a job in the background, and keeps what it hears."""

    def __init__(self, store: Store, job: str) -> None:
        self.numbers: list[int] = []
        self.lost: list[int] = []
        self.trouble: list[str | None] = []
        self.stream = store.follow(job, on_trouble=self.trouble.append)
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async for entry in self.stream:
            self.numbers.append(entry.number)
            self.lost.append(entry.lost)

    async def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.task.done():
                self.task.result()
            assert time.monotonic() < deadline, (self.numbers, self.trouble)
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.stream.aclose()


async def tell(store: Store, *numbers: int) -> None:
    for number in numbers:
        await asyncio.to_thread(store.append, "job", "run", number, [{"n": number}])


@pytest.mark.redis
def test_following_survives_restarts_without_loss(own_redis: RedisServer, open_store: Open) -> None:
    async def run() -> None:
        store = open_store(own_redis, patience=20)
        follower = Follower(store, "job")
        await tell(store, 1, 2)
        await follower.until(lambda: follower.numbers == [1, 2])
        assert follower.trouble == []
        for n in (3, 5):
            begin = time.strftime("%H:%M")
            await asyncio.to_thread(own_redis.kill)
            await follower.until(lambda: follower.trouble and follower.trouble[-1])
            match = re.fullmatch(
                rf"the store at {own_redis.url} does not answer since (\d\d:\d\d):\d\d",
                follower.trouble[-1] or "",
            )
            assert match and begin <= match[1]
            await asyncio.to_thread(own_redis.start)
            await follower.until(lambda: follower.trouble[-1] is None)
            await tell(store, n, n + 1)
            await follower.until(lambda n=n: follower.numbers[-1] == n + 1)
        assert follower.numbers == [1, 2, 3, 4, 5, 6]
        assert not any(follower.lost)
        assert [bool(text) for text in follower.trouble] == [True, False] * 2, (
            "said once, and taken back once"
        )
        await follower.stop()

    asyncio.run(run())


@pytest.mark.redis
def test_a_silent_connection_is_noticed(own_redis: RedisServer, open_store: Open) -> None:
    async def run() -> None:
        store = open_store(own_redis, timeout=0.6)
        await tell(store, 1)
        follower = Follower(store, "job")
        await follower.until(lambda: follower.numbers == [1])
        await asyncio.sleep(1.5)
        assert follower.trouble == [], "a job that prints nothing is no trouble"
        os.kill(own_redis.pid, 19)  # SIGSTOP
        try:
            await follower.until(lambda: follower.trouble)
        finally:
            os.kill(own_redis.pid, 18)  # SIGCONT
        await follower.until(lambda: follower.trouble[-1] is None)
        await tell(store, 2)
        await follower.until(lambda: follower.numbers == [1, 2])
        await follower.stop()

    asyncio.run(run())


@pytest.mark.redis
def test_a_password_that_is_changed_and_changed_back(own_redis: RedisServer, open_store: Open) -> None:
    async def run() -> None:
        store = open_store(own_redis)
        await tell(store, 1)
        follower = Follower(store, "job")
        await follower.until(lambda: follower.numbers == [1])
        with own_redis.client() as client:
            client.config_set("requirepass", "another")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            refused = "refuses our user or password since"
            await follower.until(lambda: follower.trouble and refused in (follower.trouble[-1] or ""))
            client.config_set("requirepass", own_redis.password)
        await follower.until(lambda: follower.trouble[-1] is None)
        await tell(store, 2)
        await follower.until(lambda: follower.numbers == [1, 2])
        await follower.stop()

    asyncio.run(run())


@pytest.mark.redis
def test_a_follower_can_be_cancelled_at_any_moment(own_redis: RedisServer, open_store: Open) -> None:
    async def run() -> None:
        store = open_store(own_redis)
        for n in range(1, 41):
            follower = Follower(store, "job")
            await tell(store, n)
            while n not in follower.numbers:
                await asyncio.sleep(0)  # so that it is cancelled as it asks for the next entry
            for _ in range(n % 8):
                await asyncio.sleep(0)
            follower.task.cancel()
            await asyncio.wait({follower.task}, timeout=5)
            assert follower.task.cancelled(), n
            await follower.stream.aclose()

    asyncio.run(run())


@pytest.mark.redis
def test_followers_that_share_connections_never_hear_of_each_others_jobs(store: Store) -> None:
    """One that is cancelled while it waits must not leave its answer to the next one."""

    async def run() -> None:
        reader = open_reader(store.address)

        def followed(job: str) -> Any:
            return follow(store.address, store.owner, Signer(KEY), job, reader=reader)

        for turn in range(5):
            stream = followed(f"first-{turn}")
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.05 * (turn % 2) + 0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await stream.aclose()
            for job in (f"first-{turn}", f"second-{turn}"):
                await asyncio.to_thread(store.append, job, job, 1, [{"n": job}])
            other = followed(f"second-{turn}")
            assert (await asyncio.wait_for(anext(other), 10)).writer == f"second-{turn}"
            await other.aclose()
        many = [followed(f"many-{n}") for n in range(120)]  # more than redis-py would connect by itself
        heard = [asyncio.ensure_future(anext(stream)) for stream in many]
        await asyncio.sleep(1)
        for n in reversed(range(120)):
            await asyncio.to_thread(store.append, f"many-{n}", f"many-{n}", 1, [{"n": n}])
            assert (await asyncio.wait_for(heard[n], 10)).writer == f"many-{n}", "while the others wait"
        for stream in many:
            await stream.aclose()
        await reader.aclose()

    asyncio.run(run())


@pytest.mark.redis
def test_a_forged_entry_ends_it_before_it_is_read(redis_server: RedisServer, store: Store) -> None:
    async def run() -> None:
        await tell(store, 1)
        await asyncio.to_thread(
            Store(store.address, store.owner, Signer(b"s" * 32)).append, "job", "run", 2, [{"n": 2}]
        )
        stream: Any = follow(store.address, store.owner, Signer(KEY), "job")
        assert (await anext(stream)).number == 1
        with pytest.raises(Tampered, match="events"):
            await anext(stream)
        with redis_server.client() as client:
            client.xadd(f"rayoffload:{{{store.owner}}}:job:other:events", {"any": "thing"})
        with pytest.raises(Tampered, match="none of ours"):
            await anext(follow(store.address, store.owner, Signer(KEY), "other"))

    asyncio.run(run())


@pytest.mark.redis
def test_following_what_never_answers_can_be_cancelled() -> None:
    async def run() -> None:
        trouble: list[str | None] = []
        where = StoreAddress("redis://127.0.0.1:1/0")
        stream = follow(where, "test", Signer(KEY), "job", on_trouble=trouble.append)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(stream), 0.5)
        await stream.aclose()
        assert trouble and "127.0.0.1:1" in (trouble[0] or "")
        assert len(trouble) == 1

    asyncio.run(run())
