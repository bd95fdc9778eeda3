"""The files of deploy/, parsed by the programs that read them. Images are not built here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
MADE_BY_THE_USER = {"./cameras.yaml", "./token", "./grafana-password"}
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
INSTRUCTIONS |= {"ENTRYPOINT", "CMD"}


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def instructions(name: str) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / name).read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, rest in lines]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on PATH")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "measnet.service").read_text()
    # Only the program is another: systemd wants it to be there.
    unit = tmp_path / "measnet.service"
    unit.write_text(text.replace("/opt/measnet/bin/measnet-serve", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("DynamicUser=yes", "DynamicUsers=yes"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert "DynamicUsers" in done.stderr, "it would not notice a mistake"


def test_what_compose_mounts_and_names_is_there() -> None:
    compose = read("compose.yaml")
    named = {mount.split(":")[0] for one in compose["services"].values() for mount in one["volumes"]}
    named |= {secret["file"] for secret in compose["secrets"].values()}
    files = {name for name in named if name.startswith(".")}
    assert files > MADE_BY_THE_USER
    assert [name for name in files - MADE_BY_THE_USER if not (DEPLOY / name).is_file()] == []
    assert named - files == set(compose["volumes"])
    used = {secret for one in compose["services"].values() for secret in one.get("secrets", [])}
    assert used == set(compose["secrets"])
    build = compose["services"]["measnet"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    for ports in (one.get("ports", []) for one in compose["services"].values()):
        assert all(port.startswith("127.0.0.1:") for port in ports), "nobody else is let in unasked"


def test_prometheus_grafana_and_the_program_find_each_other() -> None:
    services = read("compose.yaml")["services"]
    [job] = read("prometheus.yaml")["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in services
    [command] = [rest for word, rest in instructions("Dockerfile") if word == "CMD"]
    assert f"0.0.0.0:{port}" in json.loads(command)
    secret = Path(job["authorization"]["credentials_file"])
    assert secret.name in services["prometheus"]["secrets"]
    assert services["measnet"]["environment"]["MEASNET_TOKEN_FILE"] == str(secret)
    [source] = read("grafana/datasource.yaml")["datasources"]
    assert source["url"].removeprefix("http://").split(":")[0] in services and source["type"] == "prometheus"
    [provider] = read("grafana/dashboards.yaml")["providers"]
    mounted = [mount.split(":")[1] for mount in services["grafana"]["volumes"] if "dashboard.json" in mount]
    assert [str(Path(place).parent) for place in mounted] == [provider["options"]["path"]]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
def test_prometheus_takes_its_configuration() -> None:
    command = ["promtool", "check", "config", "--syntax-only", str(DEPLOY / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_an_image_is_made_of_what_is_there_and_runs_as_nobody_special(name: str) -> None:
    words = instructions(name)
    assert {word for word, _ in words} <= INSTRUCTIONS
    copies = [rest for word, rest in words if word == "COPY" and not rest.startswith("--from")]
    context = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()]
    for source in (source for copy in copies for source in copy.split()[:-1]):
        assert (ROOT / source).exists() and source in context, source
    assert ("USER", "measnet") in words
    for word, rest in words:
        if word in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(part, str) for part in json.loads(rest))
        if word == "HEALTHCHECK":
            compile(json.loads(rest.split("CMD", 1)[1])[2], "health", "exec")
        if word == "RUN":
            done = subprocess.run(["sh", "-n", "-c", rest], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
