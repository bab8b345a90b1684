"""The stand-in dataset on disk: three splits of pictures, then their annotations."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from data_pipeline.synthetic.annotations import annotation_files
from data_pipeline.synthetic.picture import View, draw_view, encode
from data_pipeline.synthetic.recording import SIZE_PX, Recording, hand_surfaces, record
from data_pipeline.synthetic.skin import HandSurface, Subject
from er_jax.mano import HandModel, load_hands
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import DataError
from er_jax.utils.processes import follow_parent
from er_jax.utils.progress import progress_bar

SPLITS = ("train", "val", "test")
_CHUNK = 12
_STATE_FILE = "stand_in_dataset.json"
_VERSION = 2
"""Goes up with every change of what is drawn or annotated, the stand-in hand's included."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that the bytes written depend on. Counts are of images."""

    train: int = 3000
    val: int = 200
    test: int = 400
    seed: int = 0
    version: int = _VERSION


def write_dataset(raw_dir: Path, settings: Settings, workers: int) -> bool:
    """Write the three splits, annotations last; False where all of it was there already.

    Raises:
      DataError: `raw_dir` holds other files, or a stand-in dataset of other settings.
    """
    if _begin(raw_dir, settings):
        return False
    hands = load_hands(None)
    surfaces = hand_surfaces(hands)
    recordings = _recordings(hands, settings)
    total = sum(len(recording.images) for recording in recordings)
    with progress_bar("drawing hands", total, "images") as bar:
        jobs = (
            _Job(raw_dir / "images" / recording.split, surfaces, chunk)
            for recording in recordings
            for chunk in _chunks(recording)
        )
        for drawn in _map(_draw_chunk, jobs, workers):
            bar.advance(drawn)
    for recording in recordings:
        for name, contents in annotation_files(recording).items():
            _write(raw_dir / name, json.dumps(contents).encode())
    _write_state(raw_dir, settings, complete=True)
    return True


def _recordings(hands: HandModel, settings: Settings) -> list[Recording]:
    """The splits' contents; captures are numbered on from one split to the next."""
    recordings, first_capture = [], 0
    for index, split in enumerate(SPLITS):
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


def _start_worker() -> None:
    """One thread a process, which ends with its parent."""
    cv2.setNumThreads(1)
    follow_parent()


def _map(function: Callable[[_Job], int], jobs: Iterator[_Job], workers: int) -> Iterator[int]:
    """Results of the jobs as they come, from processes of their own if there are several.

    Processes are spawned, for a fork would copy JAX's locked threads.
    """
    if workers <= 1:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_start_worker)
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
            raise DataError(
                f"{raw_dir} is not empty and holds no {_STATE_FILE}: it is no stand-in dataset, "
                "and nothing is written into it. Name another --raw_dir."
            )
        _write_state(raw_dir, settings, complete=False)
        return False
    state = json.loads(state_path.read_text())
    wanted = dataclasses.asdict(settings)
    if state["settings"] != wanted:
        raise DataError(
            f"{raw_dir} holds a stand-in dataset made with {state['settings']}, asked for is "
            f"{wanted}. Name another --raw_dir, or remove that folder."
        )
    return bool(state["complete"])


def _write_state(raw_dir: Path, settings: Settings, complete: bool) -> None:
    state = {"complete": complete, "settings": dataclasses.asdict(settings)}
    _write(raw_dir / _STATE_FILE, json.dumps(state, indent=1).encode())


def _write(path: Path, contents: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(contents)
