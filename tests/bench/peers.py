"""The peers: what one would write with Ray and Serve alone. None of them keeps anything on disk."""

from __future__ import annotations

import functools
from typing import Any

import ray
from fastapi import FastAPI
from pydantic import BaseModel, PositiveInt
from ray import serve

from remora.cluster.names import NAMESPACE

RAW_ACTOR = "bench/accounts"
MAX_ONGOING_REQUESTS = 1024
"""As the gateway has it."""
CONCURRENCY_MAX = 10_000
"""As a host has it: Ray's default of 1,000 would hold back a part of 1,024 calls."""


class Deposit(BaseModel):
    """Arguments, validated as an entity's are."""

    amount: PositiveInt


class RawAccounts:
    """A named detached async actor that does the same addition, in memory only."""

    def __init__(self) -> None:
        self._balances: dict[str, int] = {}

    async def deposit(self, account: str, amount: int) -> int:
        """Add to a balance."""
        balance = self._balances[account] = self._balances.get(account, 0) + amount
        return balance


def start_raw_actor() -> Any:  # noqa: ANN401 - Ray's handles have no type
    """Start the actor, or find it."""
    return (
        ray.remote(RawAccounts)
        .options(
            name=RAW_ACTOR, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, num_cpus=0,
            max_concurrency=CONCURRENCY_MAX, enable_task_events=False,
        )
        .remote()
    )  # fmt: skip


plain_api = FastAPI()
naive_api = FastAPI()


@plain_api.post("/account/{account}/deposit")
async def answer_at_once(account: str, body: Deposit) -> int:
    """Do nothing beyond Serve's own work and FastAPI's."""
    del account
    return body.amount


@naive_api.post("/account/{account}/deposit")
async def ask_the_actor(account: str, body: Deposit) -> int:
    """Make one actor call for each request."""
    return await _actor().deposit.remote(account, body.amount)  # type: ignore[no-any-return]  # int by RawAccounts


@functools.cache
def _actor() -> Any:  # noqa: ANN401 - Ray's handles have no type
    return ray.get_actor(RAW_ACTOR, NAMESPACE)


class Plain:
    """Serves ``plain_api``."""


class Naive:
    """Serves ``naive_api``."""


def endpoints() -> dict[str, serve.Application]:
    """Return the endpoints by name; each is served below ``/<name>``."""
    return {
        name: serve.deployment(
            serve.ingress(api)(cls),
            name=name,
            max_ongoing_requests=MAX_ONGOING_REQUESTS,
            ray_actor_options={"num_cpus": 0.1},
        ).bind()
        for name, api, cls in (("plain", plain_api, Plain), ("naive", naive_api, Naive))
    }
