from collections.abc import AsyncIterator

import pytest

import remora
from remora import Client
from remora.gateway.asgi import Gateway
from tests.unit.gateway.asking import lent
from tests.unit.gateway.shop import app


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with remora.local(app, hosts=2) as client:
        yield client


class Lender:
    """Gives the one gateway of all tests the client of the test that runs."""

    def __init__(self) -> None:
        self.client: Client
        # Reading every type's schemas takes longer than most of the tests.
        self.gateway = Gateway(app, lambda: lent(self.client))


@pytest.fixture(scope="session")
def lender() -> Lender:
    return Lender()


@pytest.fixture
async def gateway(client: Client, lender: Lender) -> AsyncIterator[Gateway]:
    lender.client = client
    await lender.gateway.open()
    yield lender.gateway
    await lender.gateway.close()
