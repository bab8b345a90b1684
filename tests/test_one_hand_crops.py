"""Single hands in training: crops of one of two hands, and data that never shows one alone."""

import dataclasses
import logging

import numpy as np
import pytest

from data_pipeline.augmentation import Augmentation, AugmentationRange, Crop
from data_pipeline.build import __main__ as build
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.images import decode_image
from data_pipeline.loader import make_train_loader
from data_pipeline.records import ANNOTATIONS
from data_pipeline.samples import prepare_sample
from er_jax.detection import DetectedHand
from er_jax.detection.types import box_around
from er_jax.mano import HANDS, load_hands
from er_jax.photographs.engine import Engine
from er_jax.rendering.cameras import PerspectiveCamera
from er_jax.supervision.loaders import warn_of_untaught_presence

INTERACTING = 2  # hand_type
PLAIN = Augmentation()


@pytest.fixture(scope="module")
def records(data_dir):
    source = RecordSource(find_dataset(data_dir, "interhand26m"), "train")
    return [source[index] for index in range(len(source))]


@pytest.fixture(scope="module")
def interacting(records):
    found = [record for record in records if record["joint_valid_world"].any(-1).all()]
    assert len(found) >= 5
    return found


class Asked(Exception):
    """The squares that an engine asks its network about."""


class Asking:
    """A network that only tells what it was asked."""

    def many(self, images, squares):
        raise Asked(squares)


def predictions_square(record, hand):
    """The square that prediction cuts out where the detector finds one hand, and all its joints."""
    camera = PerspectiveCamera(*(tuple(record[name]) for name in ("focal_px", "princpt_px")))
    joints_mm = record["joint_world_mm"][hand].astype(np.float64) @ record["camera_rotation"].T
    keypoints = camera.project((joints_mm + record["camera_translation_mm"]) / 1000)
    known = record["joint_valid_world"][hand]
    keypoints[~known] = np.nan
    found = DetectedHand(
        HANDS[hand], 1.0, 1.0, box_around(keypoints), keypoints, known.astype(np.float64)
    )
    engine = Engine(load_hands(), detector=None, network=Asking())
    with pytest.raises(Asked) as asked:
        engine.many([decode_image(record["image"])], detections=[[found]])
    return np.array(asked.value.args[0][0])


@pytest.mark.parametrize("hand", [0, 1])
@pytest.mark.parametrize("varied", [PLAIN, Augmentation(0.8, 50.0, True)])
def test_the_crop_around_one_hand_is_predictions(interacting, hand, varied):
    for record in interacting:
        expected = Crop.of(
            decode_image(record["image"]), predictions_square(record, hand), 96, varied
        )
        sample = prepare_sample(record, dataclasses.replace(varied, around_hand=hand), 96)
        np.testing.assert_allclose(sample["img2bb"], expected.affine, rtol=1e-4, atol=1e-2)
        difference = np.abs(sample["image"].astype(int) - expected.image)
        assert difference.mean() < 0.05
        np.testing.assert_array_equal(sample["augmentation"], varied.as_array())


def test_the_crop_around_one_hand_is_the_closer_one(interacting):
    """Else prediction shows a network hands larger than it has ever seen."""
    zoom = [
        [
            prepare_sample(record, Augmentation(around_hand=hand), 96)["img2bb"][0, 0]
            for hand in (None, 0, 1)
        ]
        for record in interacting
    ]
    both, right, left = np.transpose(zoom)
    assert (right >= both * 0.999).all()
    assert (left >= both * 0.999).all()
    assert np.median(np.minimum(right, left) / both) > 1.1


def test_other_samples_keep_their_box(records, interacting):
    """A hand alone; of two hands one that is nowhere visible, or outside the image."""
    alone = [record for record in records if not record["joint_valid_world"].any(-1).all()]
    unseen, outside = dict(interacting[0]), dict(interacting[0])
    unseen["joint_valid_view"] = unseen["joint_valid_view"] & [[True], [False]]
    outside["joint_world_mm"] = outside["joint_world_mm"].copy()
    outside["joint_world_mm"][1] = _beside_the_camera(outside)
    assert len(alone) >= 3
    for record in (*alone, unseen, outside):
        plain = prepare_sample(record, PLAIN, 96)["img2bb"]
        around = prepare_sample(record, Augmentation(around_hand=1), 96)["img2bb"]
        np.testing.assert_array_equal(around, plain)


def _beside_the_camera(record):
    """A hand's joints a metre before the camera and two metres to its left, in the world."""
    camera_mm = np.random.default_rng(0).normal((-2000, 0, 1000), 30, (21, 3))
    return (camera_mm - record["camera_translation_mm"]) @ record["camera_rotation"]


def test_a_loader_crops_around_single_hands(data_dir):
    """With the probability one every sample of two hands, in the same colours and order."""

    def first(probability):
        extent = AugmentationRange(one_hand_probability=probability)
        loader = make_train_loader(
            data_dir, "interhand26m", batch_size=24, seed=0, input_size=32, augmentation=extent
        )
        batch = next(loader)
        loader.close()
        return batch

    plain, around = first(0.0), first(1.0)
    for name in ("annotation_id", "augmentation"):
        np.testing.assert_array_equal(plain[name], around[name])
    both = plain["joint_valid_world"].any(-1).all(-1)
    other = (plain["img2bb"] != around["img2bb"]).any((1, 2))
    assert both.any()
    np.testing.assert_array_equal(other, both)


SINGLE_HANDS = {
    "data.dataset": {"data.dataset": "interhand26m/all"},
    "data.mixture": {"data.mixture": (("interhand26m/interacting_mano", 1), ("interhand26m", 1))},
    "a split of it": {"data.mixture": (("interhand26m/all:val", 1),), "data.train_split": "none"},
    "augmentation": {"data.augmentation.one_hand_probability": 0.1},
    "no loss": {"loss.presence": 0.0},
    "no presence": {"model.use_presence": False},
}


@pytest.fixture(scope="module")
def subsets(raw_dir, tmp_path_factory):
    """The stand-in dataset's configs `all` and `interacting_mano`."""
    folder = tmp_path_factory.mktemp("subsets")
    for name in ("all", "interacting_mano"):
        arguments = [f"--raw_dir={raw_dir}", f"--data_dir={folder}", f"--subset={name}"]
        assert build.main(["interhand26m", *arguments]) == 0
    return folder


@pytest.fixture
def config(tiny_config, subsets):
    """`configs/tiny.py` on them."""
    tiny_config.data_dir = str(subsets)
    return tiny_config


def changed(config, changes):
    config.data.dataset = "interhand26m/interacting_mano"
    config.model.use_presence = True
    config.update_from_flattened_dict(changes)
    return config


def test_data_without_single_hands_is_warned_of(config, caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_untaught_presence(changed(config, {}))
    (record,) = caplog.records
    message = record.getMessage()
    assert "no training sample of interhand26m/interacting_mano is of a single hand" in message
    assert "config.data.augmentation.one_hand_probability=" in message
    assert "interhand26m/all" in message


@pytest.mark.parametrize("changes", SINGLE_HANDS.values(), ids=SINGLE_HANDS)
def test_data_that_teaches_presence_is_not(config, caplog, changes):
    with caplog.at_level(logging.WARNING):
        warn_of_untaught_presence(changed(config, changes))
    assert not caplog.records


def test_single_hands_of_unsure_type_teach_nothing(config, caplog):
    table = find_dataset(config.data_dir, "interhand26m") / ANNOTATIONS / "train"
    known, kind = table / "hand_type_valid.npy", np.load(table / "hand_type.npy")
    before = np.load(known)
    np.save(known, before & (kind == INTERACTING))
    with caplog.at_level(logging.WARNING):
        warn_of_untaught_presence(changed(config, {"data.dataset": "interhand26m/all"}))
    np.save(known, before)
    assert len(caplog.records) == 1
