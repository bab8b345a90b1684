"""What is written of a result, for the page to show and to take away."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float

from er_jax.mano import HandModel
from er_jax.photographs.result import Reconstruction
from er_jax.rendering.overlays import write_image
from er_jax.video.drawing import draw_clip
from er_jax.video.frames import Frames
from er_jax.video.gltf import write_gltf
from er_jax.video.parquet import rows_of_pictures, write_parquet
from er_jax.video.track import Clip

HAND_M = 0.1
"""Around the place of a hand."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What was made of a picture or a clip.

    Attributes:
      result: what was found.
      overlay: the picture, or the clip, with the hands painted over it.
      model: GLB; None: there is no hand.
      files: all, to take away.
      radius_m: from which the hands are well seen; None: there is none.
    """

    result: Reconstruction | Clip
    overlay: Path
    model: Path | None
    files: tuple[Path, ...]
    radius_m: float | None = None


def save_picture(result: Reconstruction, hands: HandModel, folder: Path, name: str) -> Made:
    """Writes all that was found in a picture.

    Args:
      result: what was found.
      hands: both hand models.
      folder: to write into.
      name: that the files begin with.
    """
    import pyarrow.parquet as pq

    files = result.save(folder, name)
    overlay, table = (folder / f"{name}_hands{end}" for end in ("_overlay.png", ".parquet"))
    write_image(overlay, result.overlay())
    source = name if result.photograph.path is None else result.photograph.path.name
    pq.write_table(rows_of_pictures([(source, result)], hands), table, compression="zstd")
    made = (overlay, *files, table)
    if not result.hands:
        return Made(result, overlay, None, made)
    model = next(file for file in files if file.suffix == ".glb")
    extent = np.ptp(np.concatenate([hand.vertices for hand in result.hands]), axis=0)
    return Made(result, overlay, model, made, _radius_m(extent))


def save_clip(clip: Clip, frames: Frames, hands: HandModel, folder: Path) -> Made:
    """Writes all that was found in a clip.

    Args:
      clip: what was found.
      frames: of the clip.
      hands: both hand models.
      folder: to write into.
    """
    overlay, model, table = (
        folder / f"{clip.name}_hands{end}" for end in (".mp4", ".glb", ".parquet")
    )
    draw_clip(frames, clip, hands, overlay)
    write_parquet(clip, hands, table, source=frames.path.name)
    if not clip.tracks:
        return Made(clip, overlay, None, (overlay, table))
    write_gltf(clip, hands, model)
    places = np.concatenate([track.transl for track in clip.tracks])
    extent = np.ptp(np.percentile(places, (10, 90), axis=0), axis=0)
    # The viewer looks at the middle of the hands and of their rest pose, which is at the camera.
    nearer_m = float(np.linalg.norm(np.median(places, axis=0))) / 2
    radius_m = max(_radius_m(extent + HAND_M) - nearer_m, HAND_M)
    return Made(clip, overlay, model, (overlay, model, table), radius_m)


def _radius_m(extent_m: Float[np.ndarray, "3"]) -> float:
    """From which what is so large is seen whole in a viewer 45° high, of a phone's width too."""
    width, height, depth = extent_m
    return float(max(1.6 * width, 1.4 * height) + 0.5 * depth)
