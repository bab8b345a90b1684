"""A bulk of coded pictures as a command of its own, to be killed: INPUT OUTPUT [RAY_ADDRESS]."""

import sys
import time
from pathlib import Path

from coded_pictures import Coded

from er_jax.bulk.pool import Looking
from er_jax.bulk.results import Camera
from er_jax.bulk.run import Bulk, run
from er_jax.commands.photographs import begin
from er_jax.mano import load_hands
from er_jax.photographs.engine import Engine

CAMERA = Camera((620.0, 600.0), (255.5, 199.5))
UNIT, PROCESSES = 10, 2


class Slow(Coded):
    """Takes its time, so that it can be killed meanwhile."""

    def __call__(self, image):
        time.sleep(0.05)
        return super().__call__(image)


def slow(detector_dir: Path | None) -> tuple[Slow, Slow]:
    """As `Looking.detectors`."""
    return Slow(), Slow()


def main(inputs: str, output: str, address: str | None = None) -> None:
    begin(Path(output))
    bulk = Bulk((inputs,), Path(output), CAMERA, unit=UNIT)
    looking = Looking(detectors=slow)
    if address is None:
        run(bulk, Engine(load_hands(), detector=None), looking, PROCESSES)
        return
    from er_jax.bulk.with_ray import Ray, connected, run_with_ray

    connected(address)
    ray = Ray(address=address, lookers=1)
    run_with_ray(bulk, Engine(load_hands(), detector=None), looking, ray)


if __name__ == "__main__":
    main(*sys.argv[1:])
