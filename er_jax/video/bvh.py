"""Moving hands as BVH: a skeleton and the angles of its joints, which animation programs read.

A file is one hand: readers differ in what they make of several roots. The layout is Biovision's
(M. Meredith and S. Maddock, Motion Capture File Formats Explained, 2001): `HIERARCHY`, in which
each joint has its place relative to the one before it and its channels, then `MOTION`, a line a
frame. The channels are in the order that their rotations are multiplied in, here R = Rz Rx Ry.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from er_jax.mano import MANO16, PARENTS, TIP_VERTICES, HandModel
from er_jax.photographs.result import CAMERA_TO_GLTF
from er_jax.utils.atomic_write import atomic_write
from er_jax.video.rigs import Rig, labelled, rig_of
from er_jax.video.track import Clip

UNITS_PER_METRE = 100.0
"""The files' lengths are centimetres."""
UPRIGHT = CAMERA_TO_GLTF[:3, :3]


def write_bvh(clip: Clip, hands: HandModel, folder: Path | str) -> list[Path]:
    """Writes each hand's motion as `NAME_right.bvh`, `NAME_left.bvh` or `NAME_1_right.bvh`.

    Axes are x right, y up, z towards the viewer, with the camera at the origin; lengths are
    centimetres, angles degrees. There is a line for every frame of the clip, at one distance in
    time: where the hand is not known, it moves from where it was last seen to where it is next.

    Args:
      clip: with hands of any number; one without any gives no file.
      hands: both hand models.
      folder: made if absent.

    Returns:
      The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for label, track in labelled(clip):
        rig = rig_of(label, track, clip, hands)
        files.append(folder / f"{clip.name}_{label}.bvh")
        with atomic_write(files[-1]) as temporary:
            temporary.write_text("\n".join(_lines(rig, clip)) + "\n", encoding="ascii")
    return files


def _lines(rig: Rig, clip: Clip) -> Iterator[str]:
    wrist, rotations = _at_even_times(rig, clip)
    turns = rotations.copy()
    turns[:, 0] = UPRIGHT @ turns[:, 0]
    angles = Rotation.from_matrix(turns.reshape(-1, 3, 3)).as_euler("ZXY", suppress_warnings=True)
    # Curves without jumps of whole turns, for programs that draw or thin them out.
    degrees = np.degrees(np.unwrap(angles.reshape(len(turns), -1), axis=0))
    places = UNITS_PER_METRE * wrist @ UPRIGHT.T
    yield "HIERARCHY"
    yield from _hierarchy(rig, 0, "")
    yield "MOTION"
    yield f"Frames: {len(places)}"
    yield f"Frame Time: {1 / clip.frame_rate:.8f}"
    for row in np.hstack([places, degrees]).tolist():
        yield " ".join(f"{value:.5f}" for value in row)


def _hierarchy(rig: Rig, joint: int, indent: str) -> Iterator[str]:
    """Lines of a joint and of all that hang on it, in the order `MANO16`."""
    root = joint == 0
    offset = np.zeros(3) if root else rig.joints[joint] - rig.joints[PARENTS[joint]]
    moves = "Xposition Yposition Zposition " if root else ""
    yield f"{indent}{'ROOT' if root else 'JOINT'} {MANO16[joint]}"
    yield f"{indent}{{"
    yield f"{indent}\t{_offset(offset)}"
    yield f"{indent}\tCHANNELS {6 if root else 3} {moves}Zrotation Xrotation Yrotation"
    following = np.flatnonzero(joint == PARENTS).tolist()
    for child in following:
        yield from _hierarchy(rig, child, indent + "\t")
    if not following:
        finger = MANO16[joint].split("_")[0]
        tip = rig.vertices[TIP_VERTICES[f"{finger}_4"]] - rig.joints[joint]
        yield from (f"{indent}\tEnd Site", f"{indent}\t{{")
        yield f"{indent}\t\t{_offset(tip)}"
        yield f"{indent}\t}}"
    yield f"{indent}}}"


def _offset(metres: Float[np.ndarray, "3"]) -> str:
    return "OFFSET " + " ".join(f"{value:.6f}" for value in UNITS_PER_METRE * metres)


def _at_even_times(
    rig: Rig, clip: Clip
) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, "F 16 3 3"]]:
    """Wrist and rotations at times of one distance over the clip, held before and after."""
    span = clip.times_s[-1] - clip.times_s[0]
    even = clip.times_s[0] + np.arange(round(span * clip.frame_rate) + 1) / clip.frame_rate
    times = np.clip(even, rig.times_s[0], rig.times_s[-1])
    wrist = np.stack([np.interp(times, rig.times_s, x) for x in rig.wrist.T], axis=1)
    if len(rig.times_s) == 1:
        return wrist, np.repeat(rig.rotations, len(times), axis=0)
    turns = [
        Slerp(rig.times_s, Rotation.from_matrix(rig.rotations[:, joint]))(times).as_matrix()
        for joint in range(len(MANO16))
    ]
    return wrist, np.stack(turns, axis=1)
