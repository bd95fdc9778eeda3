"""Metrics in the text format of Prometheus. docs/operations.md lists them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from measnet.runtime.live.events import State
from measnet.runtime.live.telemetry import CameraFigures
from measnet.runtime.operations.board import Board

DROPPED = ("newer", "full", "late", "ladder", "sink")
"""Reasons that are there from the first scrape on: a rate needs a zero to begin at."""


class Metrics:
    """Writes the metrics of a board, and of this process."""

    def __init__(self, board: Board) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Cameras(board))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """All of them in the format that a scraper accepts, and that format's name."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Cameras(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def describe(self) -> list[Metric]:
        """None: names are not looked at when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        info = InfoMetricFamily("measnet", "Version of the program")
        info.add_metric([], {"version": _version()})
        yield info
        cameras = self._board.figures()
        yield from _states(cameras)
        yield from _counts(cameras)
        yield from _rates(cameras)
        yield from _contents(cameras)
        said = CounterMetricFamily("measnet_events", "Events by kind", labels=["camera", "kind"])
        for (camera, kind), count in self._board.event_counts().items():
            said.add_metric([camera, kind], count)
        yield said


def _states(cameras: list[CameraFigures]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "measnet_camera_state", "1 for the state that the camera is in", labels=["camera", "state"]
    )
    since = GaugeMetricFamily(
        "measnet_camera_state_seconds", "Time since the camera is in its state", labels=["camera"]
    )
    rung = GaugeMetricFamily(
        "measnet_ladder_rung", "1 for the step of the ladder that the camera is on", labels=["camera", "rung"]
    )
    for one in cameras:
        for name in get_args(State):
            state.add_metric([one.camera, name], float(one.state == name))
        since.add_metric([one.camera], one.state_seconds)
        rung.add_metric([one.camera, one.rung], 1)
    yield from (state, since, rung)


def _counts(cameras: list[CameraFigures]) -> Iterator[Metric]:
    arrived = CounterMetricFamily("measnet_frames_in", "Frames decoded", labels=["camera"])
    given = CounterMetricFamily("measnet_frames_out", "Frames given to the sinks", labels=["camera"])
    dropped = CounterMetricFamily(
        "measnet_frames_dropped", "Frames that had to go", labels=["camera", "reason"]
    )
    reconnects = CounterMetricFamily("measnet_reconnects", "Attempts to connect anew", labels=["camera"])
    outage = CounterMetricFamily(
        "measnet_outage_seconds", "Time not running, after the first frame", labels=["camera"]
    )
    for one in cameras:
        arrived.add_metric([one.camera], one.frames_in)
        given.add_metric([one.camera], one.frames_out)
        for reason in dict.fromkeys((*DROPPED, *one.dropped)):
            dropped.add_metric([one.camera, reason], one.dropped.get(reason, 0))
        reconnects.add_metric([one.camera], one.reconnects)
        outage.add_metric([one.camera], one.outage_seconds)
    yield from (arrived, given, dropped, reconnects, outage)


def _rates(cameras: list[CameraFigures]) -> Iterator[Metric]:
    fps_in = GaugeMetricFamily("measnet_fps_in", "Frames decoded a second, lately", labels=["camera"])
    fps_out = GaugeMetricFamily("measnet_fps_out", "Frames given a second, lately", labels=["camera"])
    latency = GaugeMetricFamily(
        "measnet_latency_seconds",
        "Time from capture to sink, lately; quantile 1 is the largest",
        labels=["camera", "quantile"],
    )
    for one in cameras:
        fps_in.add_metric([one.camera], one.fps_in)
        fps_out.add_metric([one.camera], one.fps_out)
        if one.latency is not None:
            told = {"0.5": one.latency.p50, "0.95": one.latency.p95, "0.99": one.latency.p99}
            for quantile, seconds in {**told, "1": one.latency.largest}.items():
                latency.add_metric([one.camera, quantile], seconds)
    yield from (fps_in, fps_out, latency)


def _contents(cameras: list[CameraFigures]) -> Iterator[Metric]:
    width = GaugeMetricFamily("measnet_picture_width_pixels", "Width of the source", labels=["camera"])
    height = GaugeMetricFamily("measnet_picture_height_pixels", "Height of the source", labels=["camera"])
    parity = GaugeMetricFamily(
        "measnet_parity_decibels", "PSNR of the last frame held against PyTorch", labels=["camera"]
    )
    damage = GaugeMetricFamily(
        "measnet_damage_ratio", "Share of a kind in the last frame's damage", labels=["camera", "damage"]
    )
    experts = GaugeMetricFamily(
        "measnet_expert_ratio",
        "Share of the last frame's pixels that an expert restored",
        labels=["camera", "expert"],
    )
    for one in cameras:
        width.add_metric([one.camera], one.width)
        height.add_metric([one.camera], one.height)
        if one.parity_db is not None:
            parity.add_metric([one.camera], one.parity_db)
        for name, share in one.damage.items():
            damage.add_metric([one.camera, name], share)
        for number, share in enumerate(one.experts):
            experts.add_metric([one.camera, str(number)], share)
    yield from (width, height, parity, damage, experts)


def _version() -> str:
    try:
        return version("measnet")
    except PackageNotFoundError:
        return "unknown"
