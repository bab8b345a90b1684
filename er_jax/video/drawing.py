"""The clip with its hands painted over it."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from er_jax.mano import HANDS, HandModel
from er_jax.rendering.cameras import Camera
from er_jax.rendering.overlays import HAND_COLOURS
from er_jax.rendering.rasterizer import Mesh, render_meshes
from er_jax.utils.progress import progress_bar
from er_jax.video.frames import Frames, Pixels, written_video
from er_jax.video.track import Clip

OPACITY = 0.85
_FRAMES_AT_ONCE = 256


def draw_clip(frames: Frames, clip: Clip, hands: HandModel, path: Path) -> None:
    """Writes the clip with all hands painted over it, right ones amber, left ones blue.

    Frames are decoded, painted and encoded at the same time, the picture as large as it was.

    Args:
      frames: of the clip.
      clip: what was found in it.
      hands: both hand models.
      path: of the MP4 file.
    """
    camera = clip.camera.projection
    painters = max(os.cpu_count() or 1, 1)
    waiting: deque[tuple[float, Future[Pixels]]] = deque()
    with (
        ThreadPoolExecutor(painters) as pool,
        written_video(path, clip.frame_rate) as video,
        progress_bar("Drawing", len(clip.times_s), "frames") as bar,
    ):

        def write_one() -> None:
            time_s, drawn = waiting.popleft()
            video.add(drawn.result(), time_s)
            bar.advance()

        for frame, meshes in zip(frames.read_ahead(), meshes_of_frames(clip, hands), strict=False):
            drawn = pool.submit(painted, frame.pixels, meshes, camera)
            waiting.append((frame.time_s, drawn))
            if len(waiting) > 2 * painters:
                write_one()
        while waiting:
            write_one()


def meshes_of_frames(clip: Clip, hands: HandModel) -> Iterator[list[Mesh]]:
    """The hands of each frame, as meshes to paint."""
    faces = np.asarray(hands.faces)
    for first in range(0, len(clip.times_s), _FRAMES_AT_ONCE):
        some = range(first, min(first + _FRAMES_AT_ONCE, len(clip.times_s)))
        by_frame: list[list[Mesh]] = [[] for _ in some]
        for track in clip.tracks:
            part = track.between(some.start, some.stop)
            if not len(part):
                continue
            side = HANDS.index(track.side)
            for frame, vertices in zip(part.frames, part.meshes(hands)[0], strict=True):
                mesh = Mesh(vertices, faces[side], HAND_COLOURS[side])
                by_frame[frame - first].append(mesh)
        yield from by_frame


def painted(pixels: Pixels, meshes: Sequence[Mesh], camera: Camera) -> Pixels:
    """A frame with meshes over it."""
    if not meshes:
        return pixels
    return render_meshes(pixels, meshes, camera, opacity=OPACITY, refine=False).image
