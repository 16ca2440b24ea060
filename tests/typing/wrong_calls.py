"""Wrong use of a reference: each line that ends in `# refused` must be refused by both type checkers, no other."""

from tests.typing.correct import Account, Branch

import remora


async def arguments(client: remora.Client) -> None:
    alice = client.ref(Account, "alice")
    await alice.deposit("ten")  # refused
    await alice.deposit()  # refused
    await alice.deposit(10, 20)  # refused
    await alice.deposit(amuont=10)  # refused
    await alice.deposit(None)  # refused
    await client.ref(Branch, "downtown").visited("alice", times="twice")  # refused


async def replies(client: remora.Client) -> None:
    alice = client.ref(Account, "alice")
    text: str = await alice.deposit(10)  # refused
    print(text, (await alice.balance()).upper())  # refused
    print((await alice.statement()).total)  # refused
    print(alice.deposit(10) + 1)  # refused


async def names(client: remora.Client) -> None:
    alice = client.ref(Account, "alice")
    await alice.depsoit(10)  # refused
    await client.ref(Branch, "downtown").withdraw(1)  # refused


async def references(client: remora.Client) -> None:
    client.ref(Account, 7)  # refused
    client.ref("Account", "alice")  # refused
    await client.ref(Account, "alice").with_options(comand_id="pay-7").deposit(1)  # refused
    await client.ref(Account, "alice").with_options(deadline_s="soon").deposit(1)  # refused
