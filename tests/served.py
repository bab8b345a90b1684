"""`er_jax serve` with a detector that finds the same two hands in every picture; no networks."""

import sys

from test_photographs import Known, detected, drawn

from er_jax.commands import web
from er_jax.web import engines

if __name__ == "__main__":
    engines.MediaPipeHands = lambda folder=None: Known(detected(drawn(1, (0, 1), seed=7)))
    sys.exit(web.main(["--port=0", *sys.argv[1:]], page=False))
