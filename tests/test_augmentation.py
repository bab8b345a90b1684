"""The crop's geometry and colour, and how augmentations are drawn."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipeline.augmentation import (
    NO_AUGMENTATION,
    Augmentation,
    AugmentationRange,
    crop,
    draw_augmentation,
    image_to_crop,
)
from data_pipeline.images import decode_image
from data_pipeline.readers.interhand26m.reader import read_split

SHARED = Path(__file__).parents[2] / "shared"
BOX = np.array([30.0, -20.0, 80.0, 80.0])
WIDTH = 120

needs_fixtures = pytest.mark.skipif(
    not (SHARED / "fixtures").exists(), reason="the shared fixtures are not beside the repository"
)


def apply(affine: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    return affine @ [*point, 1.0]


def smooth_image(height: int = 90, width: int = WIDTH) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_the_centre_of_the_box_comes_to_the_centre_of_the_crop():
    for augmentation in (Augmentation(), Augmentation(0.8, 33.0), Augmentation(1.2, -70.0)):
        affine = image_to_crop(BOX, WIDTH, augmentation, 256)
        np.testing.assert_allclose(apply(affine, (70, 20)), [128, 128])
        flipped = dataclasses.replace(augmentation, flip=True)
        affine = image_to_crop(BOX, WIDTH, flipped, 256)
        np.testing.assert_allclose(apply(affine, (WIDTH - 1 - 70, 20)), [128, 128])


def test_without_augmentation_the_box_fills_the_crop():
    affine = image_to_crop(BOX, WIDTH, Augmentation(), 64)
    np.testing.assert_allclose(apply(affine, (30, -20)), [0, 0], atol=1e-12)
    np.testing.assert_allclose(apply(affine, (110, 60)), [64, 64])


def test_scale_and_rotation():
    plain = image_to_crop(BOX, WIDTH, Augmentation(), 256)[:, :2]
    scaled = image_to_crop(BOX, WIDTH, Augmentation(scale=1.25), 256)[:, :2]
    np.testing.assert_allclose(scaled, plain / 1.25)
    # [[cos, sin], [−sin, cos]] with y downwards: a positive angle turns x towards −y.
    turned = image_to_crop(BOX, WIDTH, Augmentation(rotation_degrees=90.0), 256)[:, :2]
    np.testing.assert_allclose(turned @ [1, 0], [0, -256 / 80], atol=1e-12)


@pytest.mark.parametrize("rotation", [0.0, 25.0, -160.0])
def test_the_mirror_in_the_warp_is_the_mirror_before_it(rotation):
    image = smooth_image()
    augmentation = Augmentation(scale=0.9, rotation_degrees=rotation, flip=True)
    affine = image_to_crop(BOX, WIDTH, augmentation, 64)
    mirrored = cv2.warpAffine(np.ascontiguousarray(image[:, ::-1]), affine, (64, 64))
    difference = np.abs(crop(image, affine, augmentation, 64).astype(int) - mirrored)
    assert difference.mean() < 0.2
    assert np.percentile(difference, 99) <= 2


def test_outside_the_image_the_crop_is_black():
    image = np.full((90, WIDTH, 3), 200, np.uint8)
    affine = image_to_crop(BOX, WIDTH, Augmentation(), 80)
    cropped = crop(image, affine, Augmentation(), 80)
    assert (cropped[:19] == 0).all()
    assert (cropped[21:] == 200).all()


def test_colour_multiplies_each_channel_rounds_and_saturates():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    augmentation = Augmentation(colour=(0.8, 1.0, 1.2))
    affine = image_to_crop(np.array([0.0, 0, 16, 16]), 16, augmentation, 16)
    expected = np.clip(np.rint(image * np.array([0.8, 1.0, 1.2])), 0, 255)
    np.testing.assert_array_equal(crop(image, affine, augmentation, 16), expected)


def test_draws_follow_the_reference_distribution():
    drawn = [draw_augmentation(AugmentationRange(), seed=1, epoch=0, index=i) for i in range(4000)]
    scale = np.array([a.scale for a in drawn])
    rotation = np.array([a.rotation_degrees for a in drawn])
    colour = np.array([a.colour for a in drawn])
    flip = np.array([a.flip for a in drawn])
    # Φ(−1) = 0.1587 of the normal's mass lies beyond either clip; Φ(−2) = 0.02275.
    assert scale.min() == 0.75
    assert scale.max() == 1.25
    assert abs((scale == 0.75).mean() - 0.1587) < 0.02
    assert abs(scale.mean() - 1) < 0.01
    assert abs((rotation != 0).mean() - 0.6) < 0.03
    assert abs((np.abs(rotation) == 60).mean() - 0.6 * 2 * 0.02275) < 0.01
    assert abs(rotation).max() == 60
    assert colour.min() > 0.8
    assert colour.max() < 1.2
    assert abs(colour.mean() - 1) < 0.01
    assert abs(np.corrcoef(colour.T)[np.triu_indices(3, 1)]).max() < 0.05
    assert abs(flip.mean() - 0.5) < 0.03


def test_a_draw_depends_on_seed_epoch_and_index_alone():
    def draw(seed: int, epoch: int, index: int) -> Augmentation:
        return draw_augmentation(AugmentationRange(), seed=seed, epoch=epoch, index=index)

    assert draw(1, 2, 3) == draw(1, 2, 3)
    others = {draw(*key) for key in [(1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0), (1, 3, 2)]}
    assert len(others) == 5


def test_new_draws_come_after_the_old_ones():
    """What a seed gave before single hands were drawn it still gives, whether they are or not."""
    of_old = Augmentation(
        scale=0.75,
        rotation_degrees=-48.67848213090909,
        flip=True,
        colour=(1.015058940844417, 1.1161167676608614, 0.8333545545433091),
    )
    for probability in (0.0, 1.0):
        extent = AugmentationRange(one_hand_probability=probability)
        drawn = draw_augmentation(extent, seed=1, epoch=2, index=3)
        assert dataclasses.replace(drawn, around_hand=None) == of_old
        assert (drawn.around_hand is None) == (probability == 0)


def test_single_hands_are_drawn_as_often_as_asked_and_each_side_alike():
    extent = AugmentationRange(one_hand_probability=0.3)
    drawn = [draw_augmentation(extent, seed=1, epoch=0, index=i) for i in range(4000)]
    hands = [one.around_hand for one in drawn]
    assert abs(hands.count(None) / 4000 - 0.7) < 0.03
    assert abs(hands.count(0) / hands.count(1) - 1) < 0.15
    assert {*hands} == {None, 0, 1}
    alone = np.array([hand is not None for hand in hands])
    side = np.array([hand == 1 for hand in hands])
    for name in ("scale", "rotation_degrees", "flip"):
        values = np.array([getattr(one, name) for one in drawn], float)
        assert abs(np.corrcoef(values, alone)[0, 1]) < 0.05, name
        assert abs(np.corrcoef(values[alone], side[alone])[0, 1]) < 0.08, name


def test_with_ninety_degrees_every_angle_is_drawn():
    extent = AugmentationRange(rotation_degrees=90.0, rotation_probability=1.0)
    drawn = [draw_augmentation(extent, seed=1, epoch=0, index=i) for i in range(4000)]
    share, _ = np.histogram([a.rotation_degrees for a in drawn], bins=12, range=(-180, 180))
    assert share.min() > 4000 / 12 / 3


def test_a_range_of_nothing_varies_nothing():
    drawn = draw_augmentation(NO_AUGMENTATION, seed=0, epoch=0, index=7)
    assert drawn == Augmentation()


@needs_fixtures
def test_fixture_crops():
    """img2bb within 1e-4, mean colours within 0.01 of a grey level, the mirrored within one."""
    expected = np.load(SHARED / "fixtures/expected/targets_expected.npz")
    table = read_split(SHARED / "fixtures/ih26m", "train").table
    rows = {int(table.record(i)["annotation_id"]): i for i in range(len(table))}
    means = []
    for i, annotation_id in enumerate(expected["annotation_id"]):
        scale, rotation, flip = expected["augmentations"][expected["augmentation_index"][i]]
        augmentation = Augmentation(scale, rotation, bool(flip))
        affine = image_to_crop(expected["bbox_xywh"][i], 512, augmentation, 256)
        np.testing.assert_allclose(affine, expected["img2bb"][i], atol=1e-4)
        image = decode_image(table.image_path(rows[int(annotation_id)]).read_bytes())
        cropped = crop(image, affine, augmentation, 256)
        if flip:
            mirrored = np.ascontiguousarray(image[:, ::-1])
            reference = cv2.warpAffine(mirrored, affine, (256, 256))
            assert np.abs(cropped.astype(int) - reference).mean() < 1
        if expected["augmentation_index"][i] == 2:
            means.append(cropped.mean(axis=(0, 1)))
    np.testing.assert_allclose(means, expected["crop_mean_rgb_augmentation2"], atol=0.01)
