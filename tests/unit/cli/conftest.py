from collections.abc import Iterator
from pathlib import Path

import pytest

import remora
from remora.gateway.asgi import Gateway
from tests.unit.cli.running import Run, runner
from tests.unit.cli.sample import app
from tests.unit.cli.serving import Canned, serving


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder of records, whatever runs on this machine."""
    monkeypatch.setenv("REMORA_HOME", str(tmp_path))
    monkeypatch.delenv("REMORA_GATEWAY", raising=False)
    # Wide enough that no sentence is broken where a test looks for it.
    monkeypatch.setenv("COLUMNS", "250")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """URL of a real gateway before a platform in this process."""
    with serving(Gateway(app, lambda: remora.local(app))) as url:
        yield url


@pytest.fixture
def ask(run: Run, gateway: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run``, with the real gateway as the one that the environment names."""
    monkeypatch.setenv("REMORA_GATEWAY", gateway)
    return run


@pytest.fixture(scope="module")
def canned_server() -> Iterator[tuple[Canned, str]]:
    canned = Canned()
    with serving(canned) as url:
        yield canned, url


@pytest.fixture
def canned(canned_server: tuple[Canned, str], monkeypatch: pytest.MonkeyPatch) -> Canned:
    """A server that answers as the test says, named as the gateway by the environment."""
    server, url = canned_server
    monkeypatch.setenv("REMORA_GATEWAY", url)
    server.answers(200)
    return server
