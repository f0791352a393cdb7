"""What all who ask in one event loop share: an address's connections and its one bound, and its servers.

Endpoints that name the same address, for whichever model and in whichever role, take it up and give it back here.
"""

from __future__ import annotations

import asyncio
import atexit
from dataclasses import dataclass, field

from steer_verl.config import EndpointConfig
from steer_verl.models.http import Connections
from steer_verl.models.limits import Limiter
from steer_verl.models.server import Server


class Host:
    """One address: its connections, and the bound on requests in flight there."""

    def __init__(self, base_url: str) -> None:
        self.connections = Connections(base_url)
        self.limiter = Limiter(1)
        self.servers: dict[object, Server] = {}
        """By model, key and breaker settings."""
        self._ceilings: dict[object, int] = {}

    def hold(self, user: object, ceiling: int) -> None:
        """One more user, who wants at most so many requests in flight here. The smallest wish counts for all."""
        self._ceilings[user] = ceiling
        self.limiter.set_ceiling(min(self._ceilings.values()))

    def release(self, user: object) -> bool:
        """One user less; ``True`` when it was the last."""
        held = self._ceilings.pop(user, None) is not None
        if self._ceilings:
            self.limiter.set_ceiling(min(self._ceilings.values()))
        return held and not self._ceilings


@dataclass
class Hosts:
    """The hosts of one event loop, by address."""

    by_url: dict[str, Host] = field(default_factory=dict)

    def take_up(self, user: object, config: EndpointConfig) -> Server:
        """The server that a configuration without mirrors names."""
        if config.base_url not in self.by_url:
            self.by_url[config.base_url] = Host(config.base_url)
        host = self.by_url[config.base_url]
        host.hold(user, config.max_concurrency)
        key = (config.model, config.api_key_env, config.breaker)
        if key not in host.servers:
            host.servers[key] = Server(host.connections, host.limiter, config.model, config.api_key_env, config.breaker)
        return host.servers[key]

    async def give_back(self, user: object) -> None:
        """Whatever the user holds; the last one closes an address's connections."""
        left = [url for url, host in self.by_url.items() if host.release(user)]
        for host in [self.by_url.pop(url) for url in left]:  # before anything is awaited: others give back meanwhile
            await host.connections.close()


_HOSTS: dict[asyncio.AbstractEventLoop, Hosts] = {}


def hosts() -> Hosts:
    """The running event loop's; those of closed loops go."""
    _leave()
    return _HOSTS.setdefault(asyncio.get_running_loop(), Hosts())


@atexit.register
def _leave() -> None:
    """A tutor that lives as long as its event loop is never closed."""
    for loop in [loop for loop in _HOSTS if loop.is_closed()]:
        for host in _HOSTS.pop(loop).by_url.values():
            host.connections.abandon()
