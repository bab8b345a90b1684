"""The hands of millions of pictures as tables: what `er_jax bulk` does."""

import argparse
import logging
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.photographs import EXIT_INTERRUPTED, add_shared_options, begin, camera
from er_jax.photographs.load import load
from er_jax.photographs.photograph import blank, camera_of
from er_jax.utils import progress
from er_jax.utils.arguments import at_least
from er_jax.utils.errors import ConfigError, WorkerError
from er_jax.utils.processes import follow_parent
from er_jax.video.parquet import pyarrow_module


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code is that of `er_jax.main`."""
    options = _parser().parse_args(arguments)
    try:
        with exit_with_message():
            begin(options.output)
            options.part = _part(options.part)
            pyarrow_module()  # better known before anything is computed
            if options.devices > 1:
                _run_on_devices(options)
            else:
                _run(options)
    except KeyboardInterrupt:
        logging.error("Interrupted: what is whole is kept, and the same command goes on")
        return EXIT_INTERRUPTED
    return 0


def _run(options: argparse.Namespace) -> None:
    from er_jax.bulk.pool import Looking
    from er_jax.bulk.results import Camera
    from er_jax.bulk.run import Bulk, run

    asked = camera(options)
    camera_of(blank((2, 2)), **asked)  # better refused once than a million times
    bulk = Bulk(
        inputs=tuple(options.inputs),
        output=options.output,
        camera=Camera(**asked),
        column=options.column,
        unit=options.unit,
        part=options.part,
        retry=options.retry,
    )
    if options.ray is not None:
        from er_jax.bulk.with_ray import connected

        connected(options.ray)
    engine = load(
        weights=options.weights, step=options.step, mano_dir=options.mano_dir, detect=False
    )
    looking = Looking(options.detector_dir, keep_pixels=engine.has_network)
    if options.ray is None:
        tally = run(bulk, engine, looking, _processes(options))
    else:
        from er_jax.bulk.with_ray import Ray, run_with_ray

        ray = Ray(
            address=options.ray,
            weights=options.weights,
            step=options.step,
            mano_dir=options.mano_dir,
            engines=options.ray_engines,
            gpus=options.ray_gpus,
            lookers=options.processes,
        )
        tally = run_with_ray(bulk, engine, looking, ray)
    Console().print(
        f"{tally.units} units: {tally.inputs} inputs, {tally.hands} hands, {tally.failed} failed; "
        f"tables are in {options.output}",
        soft_wrap=True,
    )


def _run_on_devices(options: argparse.Namespace) -> None:
    """A process for each device, with its share of the units and of the processors.

    Raises:
      WorkerError: one of them ended badly, as it said.
    """
    number, count = options.part
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = visible.split(",") if visible else [str(i) for i in range(options.devices)]
    if len(devices) < options.devices:
        raise ConfigError(
            f"--devices={options.devices}, but CUDA_VISIBLE_DEVICES={visible} shows {len(devices)}"
        )
    options.processes = _processes(options)
    context = multiprocessing.get_context("spawn")
    children = []
    for device in range(options.devices):
        own = argparse.Namespace(**vars(options))
        own.part = (number * options.devices + device, count * options.devices)
        children.append(context.Process(target=_run_child, args=(own, device, devices[device])))
        children[-1].start()
    for child in children:
        child.join()
    if failed := [child for child in children if child.exitcode]:
        raise WorkerError(
            f"{len(failed)} of {len(children)} devices' processes ended with errors, see above: "
            "what is whole is kept, and the same command goes on"
        )


def _run_child(options: argparse.Namespace, number: int, device: str) -> None:
    follow_parent()
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    if number:
        progress.hide_bars()
    with exit_with_message():
        begin(options.output / f"device-{number}" if number else options.output)
        _run(options)


def _processes(options: argparse.Namespace) -> int:
    """As asked for, or this device's share of the processors."""
    if options.processes is not None:
        return options.processes
    return max((os.cpu_count() or 1) // options.devices, 1)


def _part(text: str) -> tuple[int, int]:
    """Reads `--part=I/N`, I from 0.

    Raises:
      ConfigError: it is no such share.
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ConfigError(f"--part={text}: give I/N, I from 0 to N - 1")
    return int(number), int(count)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="er_jax bulk",
        description="Reconstructs the hands in any number of pictures and videos, as Parquet. "
        "The same command goes on after any interruption, and does nothing when all is done.",
    )
    add = parser.add_argument
    inputs = (
        "folders, pictures, videos, tars (WebDataset), Parquet files, .txt lists, 'patterns/**'"
    )
    add("inputs", nargs="+", metavar="INPUT", help=inputs)
    add_shared_options(parser)
    add("--weights", type=Path, help="a trained network: its run's folder, or er.safetensors")
    add("--step", type=int, help="checkpoint of the run; without: the best")
    add("--detector_dir", type=Path, help="of the detector's two networks")
    add("--column", help="of Parquet files: the pictures' bytes or paths; without: as is plain")
    add("--unit", type=at_least(1), default=1000, help="pictures of a shard, about (1000)")
    add(
        "--part", default="0/1", help="I/N: this process does every N-th unit from the I-th, from 0"
    )
    processes = "that read and look at pictures; 0: this one itself; without: the cores"
    retry = "do the units again in which something failed, because a disk was not there perhaps"
    add("--retry", action="store_true", help=retry)
    add("--processes", type=at_least(0), help=processes)
    add("--devices", type=at_least(1), default=1, help="GPUs of this machine, a process each (1)")
    ray = parser.add_argument_group("on many machines, by Ray (er_jax[ray])")
    add = ray.add_argument
    add("--ray", metavar="ADDRESS", help="of a cluster, 'auto' for the one here, or 'local'")
    add("--ray_engines", type=at_least(1), default=1, help="actors that hold the network (1)")
    add("--ray_gpus", type=float, default=0.0, help="of each (0)")
    return parser
