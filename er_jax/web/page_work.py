"""What the page does with a picture or a clip, by the one worker; without Gradio."""

import dataclasses
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from er_jax.mano import HandModel
from er_jax.photographs.engine import Engine
from er_jax.photographs.photograph import PICTURE_ENDINGS, Pixels, camera_of, read_photograph
from er_jax.utils.errors import BadImageError, ConfigError, DataError
from er_jax.video.frames import VIDEO_ENDINGS, Frames
from er_jax.video.reconstruct import blank, reconstruct_clip
from er_jax.video.tracking import FollowedHand, Tracker
from er_jax.web.engines import Choice
from er_jax.web.page_files import Files
from er_jax.web.page_results import Made, save_clip, save_picture
from er_jax.web.worker import BusyError, Worker

T = TypeVar("T")

PICTURE_ROOM_BYTES, CLIP_ROOM_BYTES = 10_000_000, 100_000_000
"""Kept for what is made of a picture, of a clip."""
LOOK_S = 0.25
"""Between two looks at how far a clip is."""
HEIC = (".heic", ".heif")


@dataclasses.dataclass(frozen=True)
class PageLimits:
    """PageLimits of the page.

    Attributes:
      picture_bytes: largest picture file.
      pixels: largest picture.
      clip_bytes: largest clip.
      clip_s: longest clip.
      clip_frames: the same, where its frames are many.
      frame_pixels: largest frame of a clip.
      waiting: most jobs in the page's queue.
      answer_s: in which a picture must have been answered, once it was its turn.
    """

    picture_bytes: int = 25_000_000
    pixels: int = 60_000_000
    clip_bytes: int = 100_000_000
    clip_s: float = 30.0
    clip_frames: int = 900
    frame_pixels: int = 9_000_000
    waiting: int = 16
    answer_s: float = 60.0


class Stopped(Exception):
    """Nobody waits for the clip any more."""


class Work:
    """Does what the page is asked for.

    Args:
      worker: that alone uses engines.
      files: where results are put.
      limits: of what may be asked.
    """

    def __init__(self, worker: Worker, files: Files, limits: PageLimits):
        self._worker, self._files, self.limits = worker, files, limits
        self._hand_models: dict[str, HandModel] = {}
        self.ending = threading.Event()

    def end(self) -> None:
        """Gives up the clips that are being done."""
        self.ending.set()

    def picture(self, path: Path, choice: Choice) -> Made:
        """The hands of a picture.

        Raises:
          UserError: the picture, or the choice, is not what it should be.
          BusyError: too much is waiting, or it took too long.
        """
        _check(path, PICTURE_ENDINGS, "pictures", self.limits.picture_bytes)
        name = Path(path.name)
        photograph = read_photograph(name, _read(path), most_pixels=self.limits.pixels)
        camera_of(photograph, choice.focal_px)  # an impossible one is told at once
        with self._files.room(PICTURE_ROOM_BYTES):
            hands = self._hand_model(choice)
            result = self._wait(self._worker.reconstruct(photograph, choice))
            with self._new_folder() as folder:
                return save_picture(result, hands, folder, name.stem)

    def clip(self, path: Path, choice: Choice) -> Iterator["Progress | Made"]:
        """The hands of a clip: how far it is, again and again, and at last what was made.

        Closing the iterator gives the clip up.

        Raises:
          UserError: the clip, or the choice, is not what it should be.
          BusyError: too much is waiting.
        """
        _check(path, VIDEO_ENDINGS, "clips", self.limits.clip_bytes)
        progress = Progress(self.ending)
        with (
            self._files.room(CLIP_ROOM_BYTES),
            self._new_folder() as folder,
        ):
            work = lambda engine: self._do_clip(path, engine, choice, folder, progress)  # noqa: E731
            future = self._worker.run(choice, work)
            try:
                while not _done(future, LOOK_S):
                    yield progress
                made = future.result()
            finally:
                progress.stopped.set()
                future.cancel()
            yield made

    def _do_clip(
        self, path: Path, engine: Engine, choice: Choice, folder: Path, progress: "Progress"
    ) -> Made:
        """In the worker's thread."""
        try:
            return self._made_of_clip(path, engine, choice, folder, progress)
        except BadImageError as error:
            raise BadImageError(str(error).replace(str(path), path.name)) from error

    def _made_of_clip(
        self, path: Path, engine: Engine, choice: Choice, folder: Path, progress: "Progress"
    ) -> Made:
        frames = Frames.of(path)
        self._check_length(path, frames.count, frames.count / max(frames.frame_rate, 1.0))
        camera_of(blank((16, 16)), choice.focal_px)
        progress.begins("Following the hands", frames.count)

        def count(pixels: Pixels) -> None:
            progress.advance()
            self._check_length(path, progress.done, 0.0)
            if pixels.size // 3 > self.limits.frame_pixels:
                raise DataError(
                    f"{path.name}: frames of {pixels.size / 3e6:.0f} megapixels; at most "
                    f"{self.limits.frame_pixels / 1e6:.0f} are taken: make it smaller."
                )

        def make_tracker() -> Tracker:
            tracker = self._worker.engines.tracker()
            return cast(Tracker, _Watched(tracker, count))

        clip = reconstruct_clip(
            path,
            engine,
            make_tracker,
            focal_px=choice.focal_px,
            principal_point_px=choice.principal_point_px,
        )
        progress.begins("Painting them over the clip", 0)
        return save_clip(clip, frames, engine.hand_model, folder)

    def _check_length(self, path: Path, frames: int, seconds: float) -> None:
        if frames > self.limits.clip_frames or seconds > self.limits.clip_s + 0.5:
            raise DataError(
                f"{path.name}: too long for this page, which takes {self.limits.clip_s:.0f} s and "
                f"{self.limits.clip_frames} frames: cut it, or use the command er_jax."
            )

    @contextmanager
    def _new_folder(self) -> Iterator[Path]:
        """A folder for results, which is gone where the block raises."""
        folder = self._files.new_folder()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _hand_model(self, choice: Choice) -> HandModel:
        """For the columns of a table; asked of the worker once."""
        if choice.hand_model not in self._hand_models:
            hands = self._wait(self._worker.run(choice, lambda engine: engine.hand_model))
            self._hand_models[choice.hand_model] = hands
        return self._hand_models[choice.hand_model]

    def _wait(self, future: "Future[T]") -> T:
        try:
            return future.result(self.limits.answer_s)
        except FutureTimeoutError:
            future.cancel()
            raise BusyError(f"no answer in {self.limits.answer_s:.0f} s") from None


class Progress:
    """How far a clip is; counted by the worker's thread, read by another.

    Attributes:
      what: is being done.
      done: frames.
      total: of them; 0: not known.
      stopped: set by who does not wait any more.
    """

    def __init__(self, ending: threading.Event):
        self.what, self.done, self.total = "Waiting for the device", 0, 0
        self.stopped = threading.Event()
        self._ending = ending

    def begins(self, what: str, total: int) -> None:
        """Another part of the work."""
        self.what, self.done, self.total = what, 0, total
        self._check()

    def advance(self) -> None:
        """One frame more.

        Raises:
          Stopped: nobody waits for it.
        """
        self.done += 1
        self._check()

    def _check(self) -> None:
        if self.stopped.is_set() or self._ending.is_set():
            raise Stopped


class _Watched:
    """A tracker that says so before each frame."""

    def __init__(self, tracker: Tracker, says: Callable[[Pixels], None]):
        self._tracker, self._says = tracker, says

    def __call__(self, pixels: Pixels) -> list[FollowedHand]:
        self._says(pixels)
        return self._tracker(pixels)


def _check(path: Path, endings: tuple[str, ...], what: str, most_bytes: int) -> None:
    """Says what is wrong with a file before it is read."""
    ending = path.suffix.lower()
    if ending in HEIC:
        raise BadImageError(
            f"{path.name}: HEIC pictures cannot be read here. Save it as JPEG; an iPhone does so "
            "itself after Settings, Camera, Formats, Most Compatible."
        )
    if ending not in endings:
        known = ", ".join(endings)
        raise BadImageError(f"{path.name}: no kind of file that is taken for {what} ({known}).")
    if not path.is_file():
        raise BadImageError(f"{path.name}: it has been removed since: give it again.")
    if path.stat().st_size > most_bytes:
        raise BadImageError(
            f"{path.name}: {path.stat().st_size / 1e6:.0f} MB are more than the "
            f"{most_bytes / 1e6:.0f} MB that {what} may have here: make it smaller."
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{path.name}: cannot be read ({error.strerror})") from None


def _done(future: "Future[Any]", timeout_s: float) -> bool:
    try:
        future.exception(timeout_s)
    except FutureTimeoutError:
        return False
    return True


def focal_of(pixels: Any) -> tuple[float, float] | None:
    """The focal length that a field of the page holds; empty or 0: not known.

    Raises:
      ConfigError: it is none.
    """
    if pixels in (None, 0):
        return None
    if not isinstance(pixels, int | float) or not 0 < pixels < math.inf:
        raise ConfigError(
            f"focal length {pixels}: pixels are needed, above zero; or leave it empty."
        )
    return pixels, pixels
