"""Samples from records: read, decode, crop, colour.

Worker processes import this module, so it stays clear of Grain, which imports JAX.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.augmentation import (
    NO_AUGMENTATION,
    Augmentation,
    AugmentationRange,
    Crop,
    draw_augmentation,
)
from data_pipeline.boxes import JOINT_FIELDS, joint_boxes, joint_pixels
from data_pipeline.datasets import RecordSource
from data_pipeline.images import decode_image

ANNOTATION_FIELDS = (
    "annotation_id",
    "hand_type",
    "hand_type_valid",
    "image_size_px",
    "camera_valid",
    "camera_rotation",
    "camera_translation_mm",
    "focal_px",
    "princpt_px",
    "joint_world_mm",
    "joint_valid_world",
    "joint_valid_view",
    "joint_px",
    "joint_px_valid",
    "mano_valid",
    "mano_pose",
    "mano_betas",
    "mano_trans_m",
    "label_confidence",
    "mano_vertices_m",
    "mano_vertices_valid",
)
"""The fields of a record that a sample holds, where the record has them: those that are read."""

SAMPLED_FIELDS = (*ANNOTATION_FIELDS, "image", "bbox_px")
"""The fields of a record that a sample is made from."""


class SampleRef(NamedTuple):
    """The place that a sample is read from."""

    source: int
    epoch: int
    record: int
    real: bool = True  # False: fills up the last batch of an evaluation


class PrepareSample:
    """From a place to the sample: read, decode, crop, colour."""

    def __init__(
        self,
        sources: tuple[RecordSource, ...],
        extent: AugmentationRange,
        seed: int,
        input_size: int,
        with_vertices: bool,
    ):
        self._sources = sources
        self._extent = extent
        self._seed = seed
        self._input_size = input_size
        self._with_vertices = with_vertices

    def __call__(self, place: SampleRef) -> dict[str, np.ndarray]:
        record = self._sources[place.source][place.record]
        if self._extent == NO_AUGMENTATION:
            augmentation = Augmentation()
        else:
            augmentation = draw_augmentation(
                self._extent,
                seed=self._seed + place.source,
                epoch=place.epoch,
                index=place.record,
            )
        sample = prepare_sample(record, augmentation, self._input_size)
        if self._with_vertices and "mano_vertices_m" not in sample:
            sample["mano_vertices_m"] = np.zeros((2, 778, 3), np.float32)
            sample["mano_vertices_valid"] = np.zeros(2, bool)
        sample["sample_mask"] = np.asarray(place.real)
        return sample


def prepare_sample(
    record: Mapping[str, Any], augmentation: Augmentation, input_size: int
) -> dict[str, np.ndarray]:
    """One sample (see `Batch`) without its mask, from a record and how it is to be varied."""
    image = decode_image(record["image"])
    box = _box(record, augmentation.around_hand)
    cropped = Crop.of(image, box, input_size, augmentation)
    sample = {name: as_numbers(record[name]) for name in ANNOTATION_FIELDS if name in record}
    return sample | {
        "img2bb": cropped.affine.astype(np.float32),
        "augmentation": augmentation.as_array(),
        "image": cropped.image,
    }


def _box(record: Mapping[str, Any], around_hand: int | None) -> np.ndarray:
    """A record's box, (4,); around one hand of two, the box that prediction gives it alone.

    A hand counts with all its annotated joints, as prediction's detector finds all of them. Where
    only one hand is annotated and seen, or by a mesh alone, the box is the record's.
    """
    if around_hand is None:
        return record["bbox_px"]
    seen = record["joint_valid_world"] & record["joint_valid_view"]
    if not seen.any(axis=-1).all():
        return record["bbox_px"]
    pixels, valid = joint_pixels({name: record[name][None] for name in JOINT_FIELDS})
    valid[:, 1 - around_hand] = False
    boxes, meets_image = joint_boxes(pixels, valid, record["image_size_px"][None])
    return boxes[0] if meets_image[0] else record["bbox_px"]


def stack_samples(samples: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A batch of samples, on a leading axis."""
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def as_numbers(value: Any) -> np.ndarray:
    """A field, of one record or of many, as the device takes it: int32, float32 or bool."""
    array = np.asarray(value)
    return array.astype(np.int32) if array.dtype.kind in "iu" else array
