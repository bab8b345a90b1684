"""Pictures and a clip to try the page with, drawn by this project once and kept in a folder."""

import shutil
import tempfile
from pathlib import Path

from er_jax.rendering.overlays import write_image

VERSION = 1
PICTURES = {"pointing": 6, "waving": 9, "grasping": 4}
"""Name and seed of the pictures."""
CLIP, CLIP_SEED = "moving", 2
CLIP_S, CLIP_RATE = 2.0, 15.0


def drawn_examples(cache: Path) -> tuple[list[Path], Path]:
    """Pictures, and a clip; drawn where they are not there yet, which takes seconds.

    Args:
      cache: folder in which they are kept; several processes may do it at once.
    """
    folder = cache / f"examples_{VERSION}"
    pictures = [folder / f"{name}.png" for name in PICTURES]
    clip = folder / f"{CLIP}.mp4"
    if not all(path.exists() for path in (*pictures, clip)):
        cache.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}_", dir=cache))
        try:
            _draw(beside)
            for path in beside.iterdir():
                folder.mkdir(exist_ok=True)
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return pictures, clip


def _draw(folder: Path) -> None:
    from data_pipeline.synthetic.sequence import draw_sequence  # what only the first start needs
    from er_jax.video.frames import written_video

    for name, seed in PICTURES.items():
        write_image(folder / f"{name}.png", draw_sequence(seed, 0.02, 30.0).frame(0))
    sequence = draw_sequence(CLIP_SEED, CLIP_S, CLIP_RATE)
    with written_video(folder / f"{CLIP}.mp4", CLIP_RATE) as video:
        for pixels, time_s in zip(sequence.frames(), sequence.times_s, strict=True):
            video.add(pixels, float(time_s))
