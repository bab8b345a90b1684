"""A box becomes the square that the network sees, and what it predicts comes back to the image."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import simplejpeg

from data_pipeline.augmentation import Augmentation, Crop
from data_pipeline.images import decode_image
from er_jax.inference.boxes import square_box
from er_jax.inference.pipeline import keypoints_in_image
from er_jax.inference.reconstructor import _scaled
from er_jax.photographs.photograph import read_photograph


@pytest.mark.parametrize(
    ("box", "square"),
    [
        ((10, 20, 100, 60), (10, 0, 100, 100)),
        ((10, 20, 60, 100), (-10, 20, 100, 100)),
        ((0, 0, 7, 7), (0, 0, 7, 7)),
    ],
)
def test_a_square_about_the_boxs_centre_holds_it(box, square):
    np.testing.assert_allclose(square_box(box), square)


def dotted(width=300, height=200, where=(190, 70)):
    """A dark image with one bright dot."""
    image = np.zeros((height, width, 3), np.uint8)
    cv2.circle(image, where, 4, (255, 255, 255), cv2.FILLED)
    return image


def test_the_crops_points_come_back_to_the_image():
    """The dot is found in the crop, and its place there is its place in the image."""
    crop = Crop.of(dotted(), np.array([120.0, 10.0, 140.0, 140.0]), 128)
    rows, columns = np.nonzero(crop.image[..., 0] > 128)
    seen = np.array([columns.mean(), rows.mean()])
    np.testing.assert_allclose(crop.to_image(seen), [190, 70], atol=0.5)
    turned = Crop.of(dotted(), np.array([120.0, 10.0, 140.0, 140.0]), 128, Augmentation(0.8, 25.0))
    rows, columns = np.nonzero(turned.image[..., 0] > 128)
    seen = np.array([columns.mean(), rows.mean()])
    np.testing.assert_allclose(turned.to_image(seen), [190, 70], atol=0.5)


def test_the_heatmaps_joints_in_the_image():
    crop = Crop.of(dotted(), np.array([120.0, 10.0, 140.0, 140.0]), 128)
    cells = np.random.default_rng(0).uniform(0, 4, (2, 21, 3))
    found = keypoints_in_image(SimpleNamespace(joint_img=cells), crop)
    expected = np.array([120.0, 10.0]) + 140 / 128 * 32 * cells[..., :2]  # a cell is 32 pixels
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_bytes_and_numbers_are_one_image():
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.uint8)
    np.testing.assert_allclose(_scaled(image), image / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(_scaled(image / np.float32(255)), image / np.float32(255))


def test_red_stays_red(tmp_path):
    """In JPEG and PNG, read as a dataset's image and as a photograph."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[...] = (220, 60, 20)
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    for data in (simplejpeg.encode_jpeg(image, quality=95), png):
        path = tmp_path / "image"
        path.write_bytes(data)
        for read in (decode_image(data), read_photograph(path).pixels):
            np.testing.assert_allclose(read.mean((0, 1)), (220, 60, 20), atol=6)
