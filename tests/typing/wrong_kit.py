"""Wrong use of a kit: each line that ends in `# refused` must be refused by both type checkers, no other."""

from tests.typing.correct import Account, Balance, Branch

from remora.testing import EntityKit, message


async def arguments() -> None:
    kit = EntityKit(Account, "alice")
    await kit.run(Account.deposit, "ten")  # refused
    await kit.run(Account.deposit)  # refused
    await kit.run(Account.deposit, 10, 20)  # refused
    await kit.run(Account.deposit, amuont=10)  # refused
    await kit.run(Account.depsoit, 10)  # refused
    await kit.run("deposit", 10)  # refused
    message(Account.deposit, "bob", "ten")  # refused
    message(Account.deposit, 7, 10)  # refused


async def results() -> None:
    kit = EntityKit(Account, "alice")
    result = await kit.run(Account.deposit, 10)
    text: str = result.reply  # refused
    print(text, result.state.total)  # refused
    print(result.events[0].text)  # refused
    print((await kit.state()).total)  # refused
    await kit.clock.advance("a while")  # refused


def kits() -> None:
    EntityKit(Balance, "alice")  # refused
    EntityKit(Branch, 7)  # refused
