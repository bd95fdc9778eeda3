"""Restores pictures over HTTP: upload one, get it back restored, as PNG.

    pip install -r examples/web_service.txt
    python examples/web_service.py 8000
    curl -F picture=@noisy.png http://127.0.0.1:8000/restore -o restored.png

Listens on this machine alone. http://127.0.0.1:8000/docs is a page to try it on.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated

import numpy as np
import uvicorn
from fastapi import FastAPI, File, HTTPException, Response

from measnet import MEASNetError, Restorer

LARGEST = 50_000_000  # pixels
AT_ONCE = 4  # pictures decoded and restored; more wait

os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(LARGEST)  # OpenCV reads it as it is loaded
import cv2  # noqa: E402 - after that

app = FastAPI(title="MEASNet")
restorer = Restorer("nano", channel_order="bgr")  # OpenCV's order
places = asyncio.Semaphore(AT_ONCE)


@app.post("/restore", response_class=Response)
async def restore(picture: Annotated[bytes, File()]) -> Response:
    """Takes any picture that OpenCV reads, 8 or 16 bits; returns it restored."""
    async with places:
        pixels = await asyncio.to_thread(decoded, picture)
        try:
            restored = await restorer.restore_async(pixels)
        except MEASNetError as error:
            raise HTTPException(500, str(error)) from None
        png = await asyncio.to_thread(cv2.imencode, ".png", restored)
    return Response(png[1].tobytes(), media_type="image/png")


@app.get("/figures")
def figures() -> dict[str, float]:
    """Counts and seconds so far, for a monitor."""
    so_far = restorer.figures
    return {"frames": so_far.frames, "failed": so_far.failed, "seconds": so_far.seconds}


def decoded(picture: bytes) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise HTTPException(415, f"this is no picture of 8 or 16 bits, or it has more than {LARGEST} pixels")
    return pixels


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
