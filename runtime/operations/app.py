"""Answers of the server: the page, its data and pictures, metrics, health."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from measnet.runtime.live.telemetry import CameraFigures
from measnet.runtime.operations.board import OVER, Board, as_json
from measnet.runtime.operations.prometheus import Metrics

_SMALLER = [Middleware(GZipMiddleware, minimum_size=8_000, compresslevel=3)]


def packaged(name: str) -> str:
    """A file of this package: ``page.html``, or ``dashboard.json``, which shows the metrics in Grafana."""
    return files("measnet.runtime.operations").joinpath(name).read_text("utf-8")


def browser_rules(html: str) -> dict[str, str]:
    """Headers by which browsers run and load nothing but what ``html`` itself holds and this server sends."""
    policy = (
        f"default-src 'none'; script-src {_own(html, 'script')}; style-src {_own(html, 'style')}; "
        "img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }


def application(board: Board, html: str, *, console: bool, metrics: bool) -> Starlette:
    """Answers for one address: health, and the page with its data, metrics, or both."""
    routes = [Route("/healthz", partial(_health, board)), Route("/readyz", partial(_ready, board))]
    if metrics:
        routes += [
            Route("/metrics", partial(_metrics, Metrics(board)), middleware=_SMALLER),
            Route("/dashboard.json", _dashboard),
        ]
    if console:
        routes += [
            Route("/", partial(_page, html)),
            Route("/api/cameras", partial(_cameras, board)),
            Route("/api/events", partial(_events, board)),
            Route("/api/live", partial(_live, board), middleware=_SMALLER),
            Route("/api/pair", partial(_pair, board)),
        ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refused})


def readiness(cameras: list[CameraFigures], need: Callable[[list[bool]], bool]) -> bool:
    """Tells whether ``need`` (``all`` or ``any``) of the cameras that are not over run. None: not ready."""
    running = [camera.state == "running" for camera in cameras if camera.state not in OVER]
    return bool(running) and need(running)


async def _health(board: Board, request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _ready(board: Board, request: Request) -> Response:
    cameras = board.figures()
    need = any if "any" in request.query_params else all
    running = sum(camera.state == "running" for camera in cameras)
    status = 200 if readiness(cameras, need) else 503
    return PlainTextResponse(f"{running} of {len(cameras)} cameras run\n", status)


async def _metrics(metrics: Metrics, request: Request) -> Response:
    body, content_type = metrics.text(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})


async def _dashboard(request: Request) -> Response:
    return Response(packaged("dashboard.json"), media_type="application/json")


async def _page(html: str, request: Request) -> Response:
    return HTMLResponse(html)


async def _cameras(board: Board, request: Request) -> Response:
    return _json([as_json(camera) for camera in board.figures()])


async def _events(board: Board, request: Request) -> Response:
    return _json(board.events(_number(request, "after"), request.query_params.get("camera")))


async def _live(board: Board, request: Request) -> Response:
    return _json(board.live(_number(request, "after"), _number(request, "event")))


async def _pair(board: Board, request: Request) -> Response:
    """Source and result as JPEG files, one behind the other: both are of one frame, and arrive together."""
    feed = board.feed(request.query_params.get("camera", ""))
    if feed is None:
        raise HTTPException(404, "there are no pictures of such a camera")
    pair = await feed.other_than(_number(request, "after"))
    if pair is None:
        return Response(status_code=204)
    headers = {"x-serial": str(pair.serial), "x-source-bytes": str(len(pair.source))}
    return Response(pair.source + pair.result, headers=headers, media_type="application/octet-stream")


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise HTTPException(400, f"{name} has to be a whole number")
    return int(text)


def _json(value: Any) -> Response:
    body = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "backslashreplace"), media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)


def _own(html: str, kind: str) -> str:
    """Names the page's own scripts or styles as a content security policy does: by their hashes."""
    inner = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
    digests = (hashlib.sha256(text.encode()).digest() for text in inner)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
