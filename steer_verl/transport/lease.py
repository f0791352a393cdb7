"""One pool per process, event loop and endpoint: connections, bounds and breakers are shared by all who ask there."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from steer_verl.config import EndpointConfig
from steer_verl.transport.pool import Pool

_POOLS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[EndpointConfig, Pool]] = WeakKeyDictionary()


def pooled(config: EndpointConfig) -> Pool:
    """The running event loop's one pool of this configuration."""
    pools = _POOLS.setdefault(asyncio.get_running_loop(), {})
    if config not in pools:
        pools[config] = Pool(config)
    return pools[config]


async def release(pool: Pool) -> None:
    """Give back one user's hold; the last one closes the connections."""
    pool.users -= 1
    if pool.users <= 0:
        pools = _POOLS.get(asyncio.get_running_loop(), {})
        if pools.get(pool.config) is pool:
            del pools[pool.config]
        await pool.close()


class Lease:
    """One user's hold on the pools that it asks."""

    def __init__(self) -> None:
        self._held: set[Pool] = set()

    def pool(self, config: EndpointConfig) -> Pool:
        """The shared pool of this configuration in the running event loop."""
        pool = pooled(config)
        if pool not in self._held:
            self._held.add(pool)
            pool.users += 1
        return pool

    async def close(self) -> None:
        """Give all back; the last user of a pool closes its connections."""
        held, self._held = self._held, set()
        for pool in held:
            await release(pool)
