"""Supervision on Ray: rules reach every host, whatever they were declared in."""

from pathlib import Path

import pytest

from remora import HandlerFailed, Stopped
from remora.cluster.transport import RayDirectory
from remora.config import read_config
from tests.integration.apps import Witness
from tests.integration.running import running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(180)]
RULES = """
supervision:
  entities:
    witness:
      - exceptions: ArithmeticError
        directive: resume
        at_most: 1
        then: stop
"""


async def test_rules_of_a_file_decide_on_every_host(tmp_path: Path) -> None:
    config = read_config(RULES, "rules.yaml")
    async with running("tests.integration.apps:common", tmp_path / "common.db", config=config) as app:
        owners = set()
        for number in range(8):
            key = f"witness/{number}"
            witness = app.client.ref(Witness, str(number))
            assert await witness.mark(1) == 1
            for _ in range(2):
                with pytest.raises(HandlerFailed, match="ArithmeticError"):
                    await witness.fail()
            with pytest.raises(Stopped, match="ArithmeticError"):
                await witness.mark(2)
            owners.add(app.owner(key))

        assert owners == {row.incarnation for row in app.hosts()}
        await until(lambda: len(app.rows("SELECT * FROM failures WHERE times = 2")) == 8, 5, "all failures are noted")
        told = await RayDirectory(app.name).ask("failures", 10, "witness")
        assert {row["entity"] for row in told} == {f"witness/{number}" for number in range(8)}
        assert {row["latest"]["host"] for row in told} == {row.name for row in app.hosts()}
