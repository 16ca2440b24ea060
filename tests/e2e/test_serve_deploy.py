"""`serve deploy` with the config that ships."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from remora.cluster.ray_process import RayProcess, free_ports
from tests.e2e.machine import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
CONFIG = Path("serve_configs/local.yaml")


@pytest.mark.slow
def test_the_local_config_deployed_on_a_started_ray_answers_http(stray: RayProcess, tmp_path: Path) -> None:
    # As shipped but for what a test must not take: port 8000 and the folder .remora of this project.
    config = yaml.safe_load(CONFIG.read_text())
    port = config["http_options"]["port"] = free_ports(1)[0]
    config["applications"][0]["args"]["store"] = f"sqlite:///{tmp_path / 'bank.db'}"
    copy = tmp_path / "local.yaml"
    copy.write_text(yaml.safe_dump(config))

    done = subprocess.run(
        [Path(sys.executable).with_name("serve"), "deploy", "--address", stray.dashboard_url, copy],
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as http:

        def ready() -> bool:
            try:
                return http.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        until(ready, 90, "the gateway is ready")
        assert http.post("/v1/account/alice/deposit", json={"amount": 10}).json() == 10
        assert http.get("/v1/account/alice").json() == {"amount": 10}
        assert http.post("/v1/account/alice/withdraw", json={"amount": 11}).status_code == 409
