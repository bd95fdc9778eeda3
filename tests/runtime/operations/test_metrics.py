"""Metrics, as a real Prometheus and the dashboard of Grafana want them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from measnet.runtime.live.events import Events
from measnet.runtime.operations.access import VARIABLE
from measnet.runtime.operations.app import packaged
from runtime.operations.kit import ANYWHERE, HERE, TOKEN, Client, Connect, Serve, running_camera, wait_for


def queries() -> list[str]:
    """Every query of the dashboard, with its variables filled in as Grafana does for All."""
    dashboard = json.loads(packaged("dashboard.json"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [one["definition"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    return [
        re.sub(r"label_values\((\w+), (\w+)\)", r"group by (\2) (\1)", query)
        .replace("$camera", ".*")
        .replace("$job", ".*")
        for query in found
    ]


def test_every_query_of_the_dashboard_is_about_metrics_and_labels_that_are_there(
    serve: Serve, client: Connect, events: Events
) -> None:
    asking = client(serve(running_camera("door", events), console=HERE, metrics=HERE))
    status, headers, body = asking.get("/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=")
    labels: dict[str, set[str]] = {}
    for name, inside in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", body.decode(), re.MULTILINE):
        labels.setdefault(name, {"job"}).update(re.findall(r"(\w+)=", inside))
    asked = queries()
    assert len(asked) > 20
    used = set()
    for query in asked:
        for name, inside in re.findall(r"\b((?:measnet|process)_\w+)(?:\{(.*?)\})?", query):
            assert name in labels, query
            assert set(re.findall(r"(\w+)=", inside)) <= labels[name], query
            used.add(name)
        for by in re.findall(r"by \(([\w, ]+)\)", query):
            assert set(by.split(", ")) <= set().union(*labels.values()), query
    unused = {name for name in labels if name.startswith("measnet_")} - used
    assert unused <= {"measnet_fps_in", "measnet_fps_out"}  # for those who have no rate()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not on PATH")
def test_prometheus_scrapes_it_with_its_token_and_answers_every_query(
    serve: Serve, events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    camera = running_camera('rtsp://yard "north"\\', events)
    operations = serve(camera, console=None, metrics=ANYWHERE)
    port = urllib.parse.urlsplit(operations.url("metrics")).port
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: measnet\n"
        f"    authorization: {{credentials_file: {tmp_path}/token}}\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
    )
    own = free_port()
    command = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
    ]
    process = subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{own}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def results(query: str) -> list[Any]:
            asking = Client(f"http://127.0.0.1:{own}")
            try:
                status, _, body = asking.get("/api/v1/query?query=" + urllib.parse.quote(query))
            except OSError:
                return []
            finally:
                asking.close()
            if status == 503:
                return []  # it is still starting
            assert status == 200, body
            return list(json.loads(body)["data"]["result"])

        with camera.running(0.2):
            # A rate needs two scrapes.
            wait_for(lambda: results("rate(measnet_frames_out_total[1m])"))
            empty = [query for query in queries() if not results(query)]
        assert empty == []
        [up] = results("measnet_camera_state{state='running'}")
        assert up["metric"]["camera"] == camera.name and up["value"][1] == "1"
    finally:
        process.terminate()
        process.wait(60)
