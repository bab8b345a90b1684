"""Draws the stand-in hand in poses and shapes: `python -m tools.stand_in_hand.picture OUT.png`.

A column each; from above: the palm, the thumb's side, the back, the little finger's side.
"""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.spatial.transform import Rotation

from data_pipeline.synthetic.poses import axis_angle_from, gestures
from er_jax.mano.layer import mano_forward
from er_jax.mano.model import HandModel, load_hands
from er_jax.rendering.overlays import image_grid
from er_jax.rendering.rasterizer import Light, Mesh, WeakPerspectiveCamera, render_meshes
from tools.stand_in_hand.deformation import SHAPE_NAMES

POSES = ("relaxed", "spread", "point", "pinch", "fist", "victory")
SHAPES = {0: 3.0, 2: 3.0, 4: 3.0, 6: 2.0}
"""Betas to draw, and how far each way."""
WIDTH_PX = 1200
HEIGHT_M = 0.225
SKIN = (0.93, 0.74, 0.62)
FACING_THE_PALM = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""From MANO's axes (fingers to −x, back to +y, thumb to +z) to a camera's: fingers up."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("picture", type=Path, help="the PNG to write")
    output = parser.parse_args(arguments).picture
    picture = Image.fromarray(poses_and_shapes())
    # One material needs no more than a palette, which takes a third of the space.
    picture.quantize(256, dither=Image.Dither.NONE).save(output, optimize=True)


def poses_and_shapes() -> UInt8[np.ndarray, "H W 3"]:
    """The right hand in several poses, and below in shapes far from the mean, from four sides."""
    hand = load_hands(None).hand("right")
    known = gestures()
    relaxed = known["relaxed"]
    poses = {name: (known[name], np.zeros(10)) for name in POSES}
    shapes = {
        f"{SHAPE_NAMES[beta]} {sign}": (relaxed, step * np.eye(10)[beta])
        for beta, most in SHAPES.items()
        for sign, step in (("-", -most), ("+", most))
    }
    return np.vstack([_columns(hand, drawn) for drawn in (poses, shapes)])


def _columns(
    hand: HandModel, drawn: dict[str, tuple[Float[np.ndarray, "15 3"], Float[np.ndarray, "10"]]]
) -> UInt8[np.ndarray, "H W 3"]:
    """A sheet with a column for each title's anatomical angles and betas."""
    angles, betas = (np.stack(values) for values in zip(*drawn.values(), strict=True))
    fingers = axis_angle_from(angles) - np.asarray(hand.mean_pose)
    pose = np.concatenate([np.zeros((len(fingers), 3)), fingers], axis=-1)
    hands = np.asarray(mano_forward(hand, betas, pose).vertices, float)
    cell_px = WIDTH_PX // len(drawn)
    rows = [[_seen(one, hand, degrees, cell_px) for one in hands] for degrees in (0, 90, 180, 270)]
    return image_grid(rows, list(drawn), cell_px)


def _seen(
    vertices: Float[np.ndarray, "778 3"], hand: HandModel, degrees: float, size_px: int
) -> UInt8[np.ndarray, "H W 3"]:
    """One hand after a turn about its long axis; all hands at one scale, each in the middle."""
    turn = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    seen = vertices @ (turn @ FACING_THE_PALM).T
    seen -= (seen.max(axis=0) + seen.min(axis=0)) / 2
    background = np.full((size_px, size_px, 3), 255, np.uint8)
    camera = WeakPerspectiveCamera(size_px / HEIGHT_M, (size_px / 2, size_px / 2))
    mesh = Mesh(seen, np.asarray(hand.faces), SKIN)
    light = Light(shadow=0.5)
    return render_meshes(background, [mesh], camera, light=light, supersampling=4).image


if __name__ == "__main__":
    main()
