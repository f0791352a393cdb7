"""The servers that an endpoint names, and the order in which a dialogue prefers them."""

from __future__ import annotations

import hashlib
import math

from steer_verl.config import EndpointConfig
from steer_verl.transport.endpoint import Server


def servers_of(config: EndpointConfig) -> list[EndpointConfig]:
    """One configuration for each server: the endpoint's own, then each mirror's."""
    mirrors = [
        config.model_copy(
            update={
                "base_url": mirror.base_url,
                "weight": mirror.weight,
                "model": mirror.model or config.model,
                "api_key_env": mirror.api_key_env or config.api_key_env,
                "mirrors": (),
            }
        )
        for mirror in config.mirrors
    ]
    return [config.model_copy(update={"mirrors": ()}), *mirrors]


def by_affinity(servers: list[Server], seed: str) -> list[Server]:
    """The servers in the order in which a seed's dialogues prefer them (weighted rendezvous hashing).

    Each is first for its weight's share of all seeds, and one that drops out changes nobody else's order.
    """

    def score(server: Server) -> float:
        digest = hashlib.sha256(f"{server.config.base_url}\n{seed}".encode(errors="replace")).digest()
        drawn = ((int.from_bytes(digest[:8], "big") >> 11) + 0.5) / 2**53  # in (0, 1)
        return server.config.weight / -math.log(drawn)

    return sorted(servers, key=score, reverse=True)
