"""Clips in, moving hands out: what `er_jax CLIP` does."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from er_jax.commands.photographs import output_names
from er_jax.detection.mediapipe_hands import MediaPipeHands
from er_jax.photographs.engine import Engine
from er_jax.utils.atomic_write import write_json
from er_jax.utils.errors import ConfigError
from er_jax.video.bvh import write_bvh
from er_jax.video.drawing import draw_clip
from er_jax.video.frames import Frames
from er_jax.video.gltf import write_gltf
from er_jax.video.lerobot import Episode, write_lerobot
from er_jax.video.parquet import write_parquet
from er_jax.video.reconstruct import reconstruct_clip
from er_jax.video.track import Clip
from er_jax.video.tracking import Tracker

USUAL_KINDS = "mp4,parquet,glb"


def run_clips(
    clips: Sequence[Path],
    output: Path,
    engine: Engine,
    *,
    settings: dict[str, Any],
    kinds: str = USUAL_KINDS,
    detector_dir: Path | None = None,
    smoothed: bool = True,
    frame_rate: float = 30.0,
    focal_px: tuple[float, float] | None = None,
    principal_point_px: tuple[float, float] | None = None,
) -> None:
    """Reconstructs the hands of clips, one after the other, and writes what is asked for.

    A call that is ended leaves what it has done in `output/NAME_hands.work`; the same call goes on
    with it.

    Args:
      clips: video files, or folders of frames.
      output: folder, made if absent.
      engine: that fits the hands.
      settings: all that the result depends on, beside the clip: what was made with others is made
        again.
      kinds: of `KINDS`, with commas between them.
      detector_dir: see `er_jax.load`.
      smoothed: see `reconstruct_clip`, as `frame_rate`, `focal_px`, `principal_point_px`.

    Raises:
      ConfigError: a kind that is none.
      BadImageError: a clip that cannot be read.
    """
    wanted = kinds_of(kinds)
    # One that is not there is better known before hours are spent.
    opened = [Frames.of(path, frame_rate=frame_rate) for path in clips]
    detector = MediaPipeHands(detector_dir, thorough=False)
    done: list[tuple[Frames, Clip]] = []
    for frames, name in zip(opened, output_names(clips), strict=True):
        work = output / f"{name}_hands.work"
        given = {"clip": _identity(frames.path), "frame_rate": frame_rate}
        _start_or_continue(work, settings | given)
        found = reconstruct_clip(
            frames.path,
            engine,
            lambda: Tracker(detector),
            folder=work,
            smoothed=smoothed,
            frame_rate=frame_rate,
            focal_px=focal_px,
            principal_point_px=principal_point_px,
        )
        clip = dataclasses.replace(found, name=name)
        for message in clip.messages:
            logging.warning("%s: %s", frames.path, message)
        for kind, write in _WRITERS.items():
            if kind in wanted:
                write(frames, clip, engine, output / f"{name}_hands")
        done.append((frames, clip))
        show(clip, output)
    if "lerobot" in wanted:
        shutil.rmtree(output / "lerobot", ignore_errors=True)
        episodes = [Episode(clip, (f.pixels for f in frames.read_ahead())) for frames, clip in done]
        write_lerobot(episodes, engine.hand_model, output / "lerobot")
    for _, clip in done:
        shutil.rmtree(output / f"{clip.name}_hands.work")


def kinds_of(text: str) -> list[str]:
    """The kinds of files that an option names.

    Raises:
      ConfigError: one of them is none.
    """
    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"--write={text}: {unknown[0]!r} is none of {', '.join(KINDS)}")
    return kinds


def show(clip: Clip, output: Path) -> None:
    """Prints the hands of a clip, and where its files lie."""
    table = Table(title=clip.name)
    for column in ("person", "hand", "frames", "between others", "from", "to", "mean score"):
        table.add_column(column)
    for track in clip.tracks:
        seen = ~track.filled
        table.add_row(
            str(track.person + 1),
            track.side,
            str(len(track)),
            str(int(track.filled.sum())),
            f"{clip.times_s[track.frames[0]]:.2f} s",
            f"{clip.times_s[track.frames[-1]]:.2f} s",
            f"{track.score[seen].mean():.2f}" if seen.any() else "–",
        )
    console = Console()
    console.print(table)
    console.print(f"{len(clip.times_s)} frames; files are in {output}", soft_wrap=True)


def _write_mp4(frames: Frames, clip: Clip, engine: Engine, stem: Path) -> None:
    draw_clip(frames, clip, engine.hand_model, stem.with_name(f"{stem.name}.mp4"))


def _write_parquet(frames: Frames, clip: Clip, engine: Engine, stem: Path) -> None:
    path = stem.with_name(f"{stem.name}.parquet")
    write_parquet(clip, engine.hand_model, path, source=frames.path.name)


def _write_glb(frames: Frames, clip: Clip, engine: Engine, stem: Path) -> None:
    write_gltf(clip, engine.hand_model, stem.with_name(f"{stem.name}.glb"))


def _write_bvh(frames: Frames, clip: Clip, engine: Engine, stem: Path) -> None:
    write_bvh(clip, engine.hand_model, stem.parent)


_Writer = Callable[[Frames, Clip, Engine, Path], None]
_WRITERS: dict[str, _Writer] = {
    "mp4": _write_mp4,
    "parquet": _write_parquet,
    "glb": _write_glb,
    "bvh": _write_bvh,
}
KINDS = (*_WRITERS, "lerobot")


def _identity(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"path": str(path.absolute()), "bytes": status.st_size, "changed": status.st_mtime_ns}


def _start_or_continue(work: Path, settings: dict[str, Any]) -> None:
    """Empties the folder, unless the same call left it."""
    path = work / "settings.json"
    if path.exists() and json.loads(path.read_text()) == settings:
        logging.info("Going on with what an earlier call left in %s", work)
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_json(path, settings)
