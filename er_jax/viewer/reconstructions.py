"""Pictures' results (`Reconstruction.to_dict`, as JSON) read back as clips of one frame."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from er_jax.mano import HANDS
from er_jax.photographs.photograph import PhotographCamera
from er_jax.photographs.result import FORMAT
from er_jax.utils.errors import DataError
from er_jax.video.track import Clip, HandTrack
from er_jax.viewer.stored import Stored, chosen_source, name_of


def read_reconstruction(path: Path, source: str | None = None) -> Stored:
    """The hands of a picture, as a clip of one frame.

    What the file leaves open is not a number: a score that no network said, keypoints of a hand
    that was not detected.

    Args:
      path: of the JSON file.
      source: the picture's file name, where an option names it.

    Raises:
      ConfigError: the picture is another one than `source`.
      DataError: the file is damaged, of another format, or has no hands.
    """
    found = _opened(path)
    try:
        clip, joints = _clip(path, found)
        picture = found["image"]["file"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(
            f"{path}: a value is missing or no number ({type(error).__name__}: {error}): the file "
            "is damaged; make the result again"
        ) from None
    if not clip.tracks:
        raise DataError(f"{path}: no hand was found in this picture, so there is nothing to show")
    if source is not None:
        chosen_source(path, [str(picture)], source)
    sha256 = found.get("hand_model_sha256")
    return Stored(path, clip, joints, clip.hand_model, sha256, picture)


def _opened(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as JSON ({error}): it is damaged or something else; make the "
            "result again"
        ) from None
    told = found.get("format") if isinstance(found, dict) else None
    if told != FORMAT:
        raise DataError(
            f"{path}: format is {told!r}, not {FORMAT!r}: no picture's result, or another "
            "release's: give NAME_hands.json as er_jax writes it"
        )
    return found


def _clip(path: Path, found: Mapping[str, Any]) -> tuple[Clip, tuple[np.ndarray, ...]]:
    camera = found["camera"]
    focal, middle = _array(camera["focal_px"], 2), _array(camera["principal_point_px"], 2)
    width, height = found["image"]["size_px"]
    if not (np.isfinite([*focal, *middle]).all() and focal.min() > 0):
        raise ValueError(f"focal_px {focal.tolist()}, principal_point_px {middle.tolist()}")
    hands = [
        (number, side, person[side])
        for number, person in enumerate(found["persons"])
        for side in HANDS
        if person[side] is not None
    ]
    clip = Clip(
        name=name_of(path),
        size_px=(int(width), int(height)),
        times_s=np.zeros(1),
        camera=PhotographCamera(
            (float(focal[0]), float(focal[1])),
            (float(middle[0]), float(middle[1])),
            str(camera["focal_source"]),
        ),
        tracks=tuple(_track(*hand) for hand in hands),
        hand_model=found["hand_model"],
        messages=tuple(found["messages"]),
    )
    return clip, tuple(_array(hand["joints_m"], 21, 3)[None] for *_, hand in hands)


def _track(person: int, side: str, hand: Mapping[str, Any]) -> HandTrack:
    detected = hand["detected_keypoints_px"]
    seen = np.full((21, 2), np.nan) if detected is None else _array(detected, 21, 2)
    confidence = hand.get("detected_keypoint_confidence")
    sure = np.full(21, np.nan) if confidence is None else _array(confidence, 21)
    return HandTrack(
        person=person,
        side=side,
        frames=np.zeros(1, np.int64),
        filled=np.zeros(1, bool),
        score=_array(hand["score"])[None],
        betas=_array(hand["betas"], 10)[None],
        rotations=_array(hand["rotations_with_mean"], 16, 3, 3)[None],
        transl=_array(hand["transl_m"], 3)[None],
        keypoints_px=seen[None],
        confidence=sure[None],
        joint_sigma_m=_array(hand["joint_sigma_m"], 21)[None],
        depth_sigma_m=_array(hand["depth_sigma_m"])[None],
    )


def _array(value: Any, *shape: int) -> np.ndarray:
    """Numbers of a shape; null is not a number."""
    array = np.array(value, np.float64)
    if array.shape != shape:
        raise ValueError(f"shape {array.shape} instead of {shape}")
    return array
