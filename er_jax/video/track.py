"""A hand over the frames of a clip, and all the hands of one."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from er_jax.mano import HandModel, joints_from_vertices, mano_forward
from er_jax.photographs.photograph import PhotographCamera

FRAMES_AT_ONCE = 256


@dataclasses.dataclass(frozen=True, eq=False)
class HandTrack:
    """One hand of one person over T frames. Metres in the camera's axes (x right, y down, z
    forward), radians; a pixel's integer position is its centre.

    Attributes:
      person: number of the person in the clip, from 0; it keeps it when it leaves and comes back.
      side: "right" or "left", the same in all frames.
      frames: numbers of the frames in which the hand is known, ascending.
      filled: of which it was not seen, and its pose is between those before and after.
      score: how sure it is that the hand is there, 0 to 1; of filled frames 0.
      betas: shape of each frame; after smoothing the same in all of them.
      rotations: root and finger joints in the order `MANO16`, the mean pose included.
      transl: as `mano_forward` takes it.
      keypoints_px: as detected, `HAND21`; NaN in filled frames.
      confidence: of each keypoint, 0 to 1.
      joint_sigma_m: standard deviation of each joint's place relative to the wrist.
      depth_sigma_m: of the wrist's place, nearly all of it depth.
    """

    person: int
    side: str
    frames: Int[np.ndarray, "T"]
    filled: Bool[np.ndarray, "T"]
    score: Float[np.ndarray, "T"]
    betas: Float[np.ndarray, "T 10"]
    rotations: Float[np.ndarray, "T 16 3 3"]
    transl: Float[np.ndarray, "T 3"]
    keypoints_px: Float[np.ndarray, "T 21 2"]
    confidence: Float[np.ndarray, "T 21"]
    joint_sigma_m: Float[np.ndarray, "T 21"]
    depth_sigma_m: Float[np.ndarray, "T"]

    def __len__(self) -> int:
        return len(self.frames)

    def between(self, first: int, last: int) -> "HandTrack":
        """The part of the track in frames from `first` to before `last`."""
        return self.part(slice(*np.searchsorted(self.frames, (first, last))))

    def part(self, index: Int[np.ndarray, "n"] | slice) -> "HandTrack":
        """Some of the frames, by their places in the track, ascending."""
        names = (field.name for field in dataclasses.fields(self))
        arrays = {n: getattr(self, n)[index] for n in names if n not in ("person", "side")}
        return dataclasses.replace(self, **arrays)

    def meshes(
        self, hands: HandModel
    ) -> tuple[Float[np.ndarray, "T 778 3"], Float[np.ndarray, "T 21 3"]]:
        """Vertices and joints (`HAND21`) of every frame.

        Args:
          hands: both hand models.
        """
        hand = hands.hand(self.side)
        vertices, joints = [], []
        # Batches of one size, so that one program is compiled for all; another for live hands.
        size = 1 if len(self) == 1 else FRAMES_AT_ONCE
        for first in range(0, len(self), size):
            index = np.minimum(np.arange(first, first + size), len(self) - 1)
            arrays = (self.betas[index], self.rotations[index], self.transl[index])
            mesh = mano_forward(hand, *(np.asarray(x, np.float32) for x in arrays)).vertices
            count = min(size, len(self) - first)
            vertices.append(np.asarray(mesh)[:count])
            joints.append(np.asarray(joints_from_vertices(hand, mesh))[:count])
        return np.concatenate(vertices), np.concatenate(joints)


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """The hands of a clip.

    Attributes:
      name: of the clip's file, without its ending.
      size_px: width and height of the frames.
      times_s: of every frame, those without a hand too; from 0.
      camera: of all frames.
      tracks: of all hands of all persons.
      hand_model: where the meshes come from: "MANO files" or "stand-in".
      messages: what should be known before this is trusted, one sentence each.
    """

    name: str
    size_px: tuple[int, int]
    times_s: Float[np.ndarray, "F"]
    camera: PhotographCamera
    tracks: tuple[HandTrack, ...]
    hand_model: str
    messages: tuple[str, ...] = ()

    @property
    def frame_rate(self) -> float:
        """Frames a second, by the median time between two."""
        if len(self.times_s) < 2:
            return 30.0
        return float(1 / np.median(np.diff(self.times_s)))
