"""Write a raw dataset of drawn hands in InterHand2.6M's layout on disk.

    python -m data_pipeline.stand_in_dataset --raw_dir=… [--train=3000 --val=200 --test=400]
        [--seed=0 --workers=2]

The same seed and counts give the same bytes, however many worker processes draw. Running the same
command again after an interruption draws what is missing; after its end it does nothing.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from data_pipeline.stand_in_annotations import annotation_files
from data_pipeline.stand_in_picture import HandSurface, Subject, View, draw_view, encode
from data_pipeline.stand_in_recording import SIZE_PX, Recording, hand_surfaces, record
from er_jax.mano import HandModel, load_hands

_CHUNK = 12
_STATE_FILE = "stand_in_dataset.json"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the bytes written depend on. Counts are of images."""

    train: int = 3000
    val: int = 200
    test: int = 400
    seed: int = 0
    version: int = _VERSION


class RawDirError(Exception):
    """The folder to write into holds something else."""


def write_dataset(raw_dir: Path, settings: Settings, workers: int) -> bool:
    """Write the three splits, annotations last; False where all of it was there already.

    Raises:
        RawDirError: `raw_dir` holds other files, or a stand-in dataset of other settings.
    """
    if _begin(raw_dir, settings):
        return False
    hands = load_hands(None)
    surfaces = hand_surfaces(hands)
    recordings = _recordings(hands, settings)
    total = sum(len(recording.images) for recording in recordings)
    with _progress() as progress:
        task = progress.add_task("drawing hands", total=total)
        jobs = (
            _Job(raw_dir / "images" / recording.split, surfaces, chunk)
            for recording in recordings
            for chunk in _chunks(recording)
        )
        for drawn in _map(_draw_chunk, jobs, workers):
            progress.advance(task, drawn)
    for recording in recordings:
        for name, contents in annotation_files(recording).items():
            _write(raw_dir / name, json.dumps(contents).encode())
    _write_state(raw_dir, settings, complete=True)
    return True


def _recordings(hands: HandModel, settings: Settings) -> list[Recording]:
    """The splits' contents; captures are numbered on from one split to the next."""
    recordings, first_capture = [], 0
    for index, split in enumerate(("train", "val", "test")):
        recording = record(
            hands, split, getattr(settings, split), first_capture, (settings.seed, index)
        )
        first_capture += len(recording.captures)
        recordings.append(recording)
    return recordings


@dataclasses.dataclass(frozen=True)
class _Job:
    image_dir: Path
    surfaces: tuple[HandSurface, HandSurface]
    pictures: list[tuple[str, View, Subject]]


def _chunks(recording: Recording) -> Iterator[list[tuple[str, View, Subject]]]:
    for start in range(0, len(recording.images), _CHUNK):
        yield [
            (image.file_name, recording.view(image), recording.captures[image.capture].subject)
            for image in recording.images[start : start + _CHUNK]
        ]


def _draw_chunk(job: _Job) -> int:
    """Draw the chunk's pictures that are not there yet; their number."""
    for file_name, view, subject in job.pictures:
        path = job.image_dir / file_name
        if not path.exists():
            rendering = draw_view(view, job.surfaces, subject, SIZE_PX)
            _write(path, encode(rendering.image, view.grey))
    return len(job.pictures)


def _map(function, jobs: Iterator[_Job], workers: int) -> Iterator[int]:
    """Results of the jobs as they come, from processes of their own if there are several.

    Processes are spawned, for a fork would copy JAX's locked threads.
    """
    if workers <= 1:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=cv2.setNumThreads, initargs=(1,)
    )
    try:
        for done in concurrent.futures.as_completed([pool.submit(function, job) for job in jobs]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(raw_dir: Path, settings: Settings) -> bool:
    """Claim the folder for these settings; True where the dataset is complete."""
    state_path = raw_dir / _STATE_FILE
    if not state_path.exists():
        if raw_dir.exists() and any(raw_dir.iterdir()):
            raise RawDirError(
                f"{raw_dir} is not empty and holds no {_STATE_FILE}: it is no stand-in dataset, "
                "and nothing is written into it. Name another --raw_dir."
            )
        _write_state(raw_dir, settings, complete=False)
        return False
    state = json.loads(state_path.read_text())
    wanted = dataclasses.asdict(settings)
    if state["settings"] != wanted:
        raise RawDirError(
            f"{raw_dir} holds a stand-in dataset made with {state['settings']}, asked for is "
            f"{wanted}. Name another --raw_dir, or remove that folder."
        )
    return bool(state["complete"])


def _write_state(raw_dir: Path, settings: Settings, complete: bool) -> None:
    state = {"complete": complete, "settings": dataclasses.asdict(settings)}
    _write(raw_dir / _STATE_FILE, json.dumps(state, indent=1).encode())


def _write(path: Path, contents: bytes) -> None:
    """Write beside, then rename: a file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(contents)
    beside.replace(path)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw_dir", type=Path, required=True, help="folder to write")
    for field in dataclasses.fields(Settings):
        if field.name != "version":
            parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = vars(parser.parse_args(arguments))
    raw_dir, workers = given.pop("raw_dir"), given.pop("workers")
    settings = Settings(**given)
    if write_dataset(raw_dir, settings, workers):
        print(f"Wrote {settings.train + settings.val + settings.test} images to {raw_dir}")
    else:
        print(f"{raw_dir} is complete already, nothing to do")


if __name__ == "__main__":
    main()
