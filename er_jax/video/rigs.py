"""A track's hand as a rig: one shape, bones with weights at rest, and a motion of the bones."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from er_jax.mano import HandModel
from er_jax.mano.conventions import rest_wrist
from er_jax.mano.model import VERTICES
from er_jax.video.track import Clip, HandTrack


@dataclasses.dataclass(frozen=True, eq=False)
class Rig:
    """The hand of a track. Metres, MANO's axes at rest and the camera's in motion.

    What MANO adds to the shape by the pose is left out. Bones are in the order `MANO16`, each
    turned against the one before it.

    Attributes:
      label: "right" or "left", after the person's number where the clip has several persons.
      side: of the hand.
      times_s: of the T frames in which it is known.
      vertices: at rest, of the track's mean shape.
      faces: of the mesh.
      weights: of the bones at each vertex; each row sums to 1.
      joints: of the bones at rest.
      rotations: of the bones.
      wrist: where the wrist's bone begins.
    """

    label: str
    side: str
    times_s: Float[np.ndarray, "T"]
    vertices: Float[np.ndarray, "778 3"]
    faces: Int[np.ndarray, "1538 3"]
    weights: Float[np.ndarray, "778 16"]
    joints: Float[np.ndarray, "16 3"]
    rotations: Float[np.ndarray, "T 16 3 3"]
    wrist: Float[np.ndarray, "T 3"]


def labelled(clip: Clip) -> Iterator[tuple[str, HandTrack]]:
    """The tracks that have a frame, each with a name of its own."""
    tracks = [track for track in clip.tracks if len(track)]
    several = len({track.person for track in tracks}) > 1
    given: dict[str, int] = {}
    for track in tracks:
        label = f"{track.person + 1}_{track.side}" if several else track.side
        given[label] = given.get(label, 0) + 1
        yield (label if given[label] == 1 else f"{label}_{given[label]}"), track


def rig_of(label: str, track: HandTrack, clip: Clip, hands: HandModel) -> Rig:
    """The rig of a track that has a frame.

    Args:
      label: of the rig.
      track: of the clip.
      clip: whose times they are.
      hands: both hand models.
    """
    hand = hands.hand(track.side)
    seen = track.betas if track.filled.all() else track.betas[~track.filled]
    betas = seen.mean(0, dtype=np.float64)
    arrays = (hand.template, hand.blend_directions, hand.rest_joints, hand.rest_joint_directions)
    template, blend, joints, moved = (np.asarray(x, np.float64) for x in arrays)
    directions = blend.reshape(len(blend), *template.shape)[: len(betas)]
    vertices = (template + np.einsum("k,kcv->cv", betas, directions)).T
    return Rig(
        label=label,
        side=track.side,
        times_s=clip.times_s[track.frames],
        vertices=vertices[:VERTICES],
        faces=np.asarray(hand.faces),
        weights=np.asarray(hand.skinning_weights, np.float64).T[:VERTICES],
        joints=(joints + np.einsum("k,kcj->cj", betas, moved)).T,
        rotations=np.asarray(track.rotations, np.float64),
        # Of each frame's own shape: the hand stays where it was seen.
        wrist=rest_wrist(hand, track.betas) + track.transl,
    )
