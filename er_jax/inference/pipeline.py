"""From an image and the box around its two hands to their reconstruction, without any file."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, UInt8
from scipy import special

from data_pipeline.augmentation import Crop
from er_jax.inference.boxes import Box, square_box
from er_jax.inference.reconstructor import Reconstructor
from er_jax.mano import HandModel
from er_jax.models import ERNet, Prediction
from er_jax.models.config import BACKBONE_STRIDE

Image = UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class TwoHands:
    """The network's result for the two hands of an image; hands are an axis (right, left).

    Attributes:
      prediction: without a batch axis: `vertices` (2, 778, 3) and `joints` (2, 21, 3) in metres
        from each hand's wrist, camera axes (x right, y down, z forward), `betas`, `pose`,
        `rel_trans` (left wrist minus right wrist, metres), …
      keypoints_px: where the heatmaps see the joints, in the image.
      box_px: the square that was looked at, x, y, side, side.
      crop: what the network saw of it.
    """

    prediction: Prediction
    keypoints_px: Float[np.ndarray, "2 21 2"]
    box_px: Float[np.ndarray, "4"]
    crop: Crop

    @property
    def presence(self) -> Float[np.ndarray, "2"] | None:
        """How sure it is that each hand is there, 0 to 1; None: the network does not say it."""
        logit = self.prediction.presence_logit
        return None if logit is None else special.expit(np.asarray(logit, np.float64))


class Pipeline:
    """A trained network for images of any size.

    Args:
      net: the network.
      hands: both hand models.
      collect: names of intermediate outputs that predictions shall hold (see `ERNet`).
    """

    def __init__(self, net: ERNet, hands: HandModel, *, collect: Sequence[str] = ()):
        self._input_size = net.config.input_size
        self._reconstruct = Reconstructor(net, hands, collect=collect)

    def __call__(self, image: Image, box: Box | None = None) -> TwoHands:
        """The reconstruction of one image; see `many`."""
        return self.many([image], [box])[0]

    def many(self, images: Sequence[Image], boxes: Sequence[Box | None]) -> list[TwoHands]:
        """The reconstructions of several images, as batches.

        Args:
          images: RGB, of any sizes.
          boxes: around both hands of each; None: the whole image.

        Raises:
          ConfigError: a box has no area, or is none.
        """
        squares = [
            square_box((0, 0, *image.shape[1::-1]) if box is None else box)
            for image, box in zip(images, boxes, strict=True)
        ]
        crops = [
            Crop.of(image, square, self._input_size)
            for image, square in zip(images, squares, strict=True)
        ]
        predictions = self._reconstruct(np.stack([crop.image for crop in crops]))
        found = []
        for row, (crop, square) in enumerate(zip(crops, squares, strict=True)):
            prediction = jax.tree.map(lambda x, row=row: x[row], predictions)
            found.append(TwoHands(prediction, keypoints_in_image(prediction, crop), square, crop))
        return found


def keypoints_in_image(prediction: Prediction, crop: Crop) -> Float[np.ndarray, "2 21 2"]:
    """Where the heatmaps of one prediction, without a batch axis, see the joints, in pixels."""
    cells = np.asarray(prediction.joint_img, np.float64)[..., :2]
    return crop.to_image(cells * BACKBONE_STRIDE)
