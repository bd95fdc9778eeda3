"""measnet-run with an engine that changes nothing; the first argument is how many seconds a frame takes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from measnet.image import Pixels
from measnet.runtime import cli
from measnet.runtime.restorer import RestoredFrame

sys.path.insert(0, str(Path(__file__).parents[1]))
from runtime.identity import IdentityRestorer

_SECONDS = float(sys.argv.pop(1))


class _SlowIdentity(IdentityRestorer):
    def restore(self, pixels: Pixels) -> RestoredFrame:
        time.sleep(_SECONDS)
        return super().restore(pixels)


cli.main(obj=lambda options: _SlowIdentity())
