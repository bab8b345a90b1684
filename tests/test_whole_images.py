"""Whole images: what is found is counted once, by the hand it lies on, and compared with it."""

import dataclasses

import numpy as np
import pytest
from drawn_hands import FOCAL, MIDDLE, drawn
from test_photographs import SIZE, Known, detected

from data_pipeline.annotated_split import AnnotatedSplit
from er_jax.mano import HANDS, load_hands
from er_jax.photographs.engine import Engine
from er_jax.photographs.whole_images import (
    AnnotatedHand,
    AnnotatedImage,
    annotated_image,
    evaluate_whole_images,
)

TRUTH = drawn(1, (0, 1), seed=7)


def image() -> AnnotatedImage:
    hands = tuple(
        AnnotatedHand(side, TRUTH.joints[0, side], TRUTH.keypoints[0, side], np.full(21, True))
        for side in range(2)
    )
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    return AnnotatedImage(pixels, tuple(FOCAL), tuple(MIDDLE), True, hands)


def score(found):
    scores = evaluate_whole_images([image()], Known(found), {})
    return scores["detector"]["interacting"]


def test_the_truth_is_found_without_error():
    whole = score(detected(TRUTH))
    assert (whole.annotated, whole.found, whole.side_right) == (2, 2, 2)
    np.testing.assert_allclose([*whole.pa_mpjpe, *whole.wrist_aligned], 0, atol=1e-3)


def test_errors_are_after_a_similarity_and_after_a_shift():
    right, left = detected(TRUTH)
    larger = dataclasses.replace(right, joints_m=right.joints_m * 1.1 + 0.3)
    whole = score([larger, left])
    np.testing.assert_allclose(whole.pa_mpjpe, 0, atol=1e-3)
    relative = TRUTH.joints[0, 0] - TRUTH.joints[0, 0, 0]
    expected = 1000 * 0.1 * np.linalg.norm(relative, axis=-1).mean()
    np.testing.assert_allclose(max(whole.wrist_aligned), expected, rtol=1e-6)


def test_a_hand_of_the_wrong_side_counts_as_found_and_one_far_away_does_not():
    right, left = detected(TRUTH)
    wrong = dataclasses.replace(right, side="left")
    far = dataclasses.replace(left, keypoints_px=left.keypoints_px + 150)
    assert (score([wrong]).found, score([wrong]).side_right) == (1, 0)
    assert score([right, far]).found == 1
    assert score([right, right]).found == 1  # twice the same hand


def test_joints_without_annotation_do_not_count():
    (one, two) = image().hands
    nowhere = dataclasses.replace(one, joints_m=np.full((21, 3), np.nan))
    part = two.joints_m.copy()
    part[5] = np.nan
    hands = (nowhere, dataclasses.replace(two, joints_m=part))
    partly = dataclasses.replace(image(), hands=hands)
    found = evaluate_whole_images([partly], Known(detected(TRUTH)), {})["detector"]["interacting"]
    assert found.found == 2
    np.testing.assert_allclose(found.pa_mpjpe, [0], atol=1e-3)


def test_an_engine_is_compared_by_its_own_joints_and_the_images_camera():
    engine = Engine(load_hands(), detector=None)
    scores = evaluate_whole_images([image()], Known(detected(TRUTH)), {"fit": engine})
    errors = scores["fit"]["interacting"]
    assert errors.found == 2
    assert 0 < max(errors.pa_mpjpe) < 8


@pytest.mark.parametrize("index", [0, 7])
def test_a_splits_images_and_truth(data_dir, index):
    """The annotated hands lie in the image, at the depths that were drawn, on the right sides."""
    split = AnnotatedSplit(data_dir, "interhand26m/all", "test")
    found = annotated_image(split, index)
    assert found.hands
    for hand in found.hands:
        assert HANDS[hand.side] in ("right", "left")
        assert 0.3 < hand.joints_m[hand.known][:, 2].min() < 3
        inside = (hand.keypoints_px[hand.known] > -30).all(-1)
        assert inside.mean() > 0.8
