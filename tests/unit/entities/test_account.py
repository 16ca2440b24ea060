import pytest

import remora
from entities.account import Account, app
from remora.storage.memory import MemoryStore


async def test_deposits_and_withdrawals_change_the_balance() -> None:
    async with remora.local(app) as client:
        alice = client.ref(Account, "alice")

        assert await alice.deposit(10) == 10
        assert await alice.withdraw(3) == 7
        assert await alice.balance() == 7
        assert await client.ref(Account, "bob").balance() == 0


async def test_a_withdrawal_over_the_balance_is_rejected_and_changes_nothing() -> None:
    async with remora.local(app) as client:
        alice = client.ref(Account, "alice")
        await alice.deposit(10)

        with pytest.raises(remora.Rejected, match="Balance 10 does not cover 11"):
            await alice.withdraw(11)
        assert await alice.balance() == 10


@pytest.mark.parametrize("amount", [0, -1])
async def test_an_amount_that_is_not_positive_never_reaches_the_account(amount: int) -> None:
    async with remora.local(app) as client:
        with pytest.raises(remora.InvalidArgument, match="amount"):
            await client.ref(Account, "alice").deposit(amount)


async def test_the_same_command_id_gives_the_same_reply_and_is_applied_once() -> None:
    async with remora.local(app) as client:
        alice = client.ref(Account, "alice")

        assert await alice.with_options(command_id="pay-7").deposit(10) == 10
        assert await alice.deposit(1) == 11
        assert await alice.with_options(command_id="pay-7").deposit(10) == 10
        assert await alice.balance() == 11


async def test_the_balance_is_what_the_journal_makes_of_it_after_a_restart() -> None:
    store = MemoryStore()
    async with remora.local(app, store=store) as client:
        await client.ref(Account, "alice").deposit(10)
        await client.ref(Account, "alice").withdraw(4)

    async with remora.local(app, store=store) as client:
        assert await client.ref(Account, "alice").balance() == 6
