"""Hands by file: this project's own format, and converters from the files of other detectors.

The format `er_jax keypoints 1` is JSON:

    {"format": "er_jax keypoints 1",
     "images": [
       {"image": "a.jpg",
        "size_px": [640, 480], "focal_px": [600, 600], "principal_point_px": [319.5, 239.5],
        "hands": [{"side": "right", "side_probability": 0.98, "score": 0.9,
                   "keypoints_px": [[12.5, 40.0, 0.9], [30.1, 41.5], null, …],
                   "joints_m": [[0.01, 0.02, 0.0], …]}]}]}

`keypoints_px` has 21 entries in the order of `er_jax.mano.joints.HAND21`: x, y and, where it is not
1, the confidence; null where the joint is not known. Pixels are those of the picture as it is seen
(turned upright as its EXIF data say), a pixel's integer position its centre. `joints_m`, 21 × 3, is
in camera axes (x right, y down, z forward). `size_px`, `focal_px`, `principal_point_px`,
`side_probability` (1), `score` (1), `relative_depth_px` (21 numbers) and `joints_m` may be absent.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from er_jax.detection.types import DetectedHand, Side, box_around
from er_jax.utils.atomic_write import write_json
from er_jax.utils.errors import DataError

FORMAT = "er_jax keypoints 1"

T = TypeVar("T")
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Point = Annotated[list[float], msgspec.Meta(min_length=2, max_length=3)]
Point3 = Annotated[list[float], msgspec.Meta(min_length=3, max_length=3)]
Joints = Annotated[list[T], msgspec.Meta(min_length=21, max_length=21)]


class KeypointsError(DataError, ValueError):
    """A file of keypoints that cannot be read, or whose content cannot be meant."""


@dataclasses.dataclass(frozen=True)
class ImageKeypoints:
    """The hands of one picture.

    Attributes:
      image: its path or name, as the file says.
      hands: in the file's order.
      size_px: width and height, if told.
      focal_px: along x and y, if told.
      principal_point_px: x and y, if told.
    """

    image: str
    hands: list[DetectedHand]
    size_px: tuple[int, int] | None = None
    focal_px: tuple[float, float] | None = None
    principal_point_px: tuple[float, float] | None = None


class _Hand(msgspec.Struct, forbid_unknown_fields=True):
    side: Side
    keypoints_px: Joints[Point | None]
    side_probability: Probability = 1.0
    score: Probability = 1.0
    relative_depth_px: Joints[float] | None = None
    joints_m: Joints[Point3] | None = None


class _Image(msgspec.Struct, forbid_unknown_fields=True):
    image: str
    hands: list[_Hand]
    size_px: tuple[int, int] | None = None
    focal_px: tuple[Positive, Positive] | None = None
    principal_point_px: tuple[float, float] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["er_jax keypoints 1"]
    images: list[_Image]


class _OpenPosePerson(msgspec.Struct):
    hand_left_keypoints_2d: list[float]
    hand_right_keypoints_2d: list[float]


class _OpenPoseFile(msgspec.Struct):
    people: list[_OpenPosePerson]


class _MMPoseInstance(msgspec.Struct):
    keypoints: list[Point]
    keypoint_scores: list[float]


class _Landmark(msgspec.Struct):
    x: float
    y: float
    z: float


class _Category(msgspec.Struct):
    score: Probability
    category_name: str = ""
    categoryName: str = ""


class _MediaPipeFile(msgspec.Struct):
    """The names of Python's results, and those of JavaScript's."""

    handedness: list[list[_Category]]
    hand_landmarks: list[Joints[_Landmark]] | None = None
    hand_world_landmarks: list[Joints[_Landmark]] | None = None
    landmarks: list[Joints[_Landmark]] | None = None
    worldLandmarks: list[Joints[_Landmark]] | None = None


def read_keypoints(
    path: Path,
    kind: str = "er_jax",
    *,
    side: Side | None = None,
    size_px: tuple[int, int] | None = None,
    swap_sides: bool = False,
) -> list[ImageKeypoints]:
    """The hands of one or many pictures, in the file's order.

    Args:
      path: a file; or, but for `er_jax`, a folder with a file a picture, read by name.
      kind: `er_jax`: the format above.
        `openpose`: NAME_keypoints.json with people's `hand_left_keypoints_2d`, `hand_right_…`.
        `mmpose`: NAME.json of its inferencer for one picture: COCO-WholeBody's 133 keypoints, or
        the 21 of a hand model in the order of OneHand10K, FreiHAND and COCO-WholeBody-Hand.
        `mediapipe`: NAME.json, the fields of a HandLandmarkerResult (Python) or of its JavaScript
        twin.
        Those without a picture's name take the file's: NAME.
      side: of 21-keypoint hands, which do not tell it (`mmpose`).
      size_px: of the picture, of which MediaPipe's positions are fractions (`mediapipe`).
      swap_sides: right is left: where the detector saw mirrored pictures, or names sides as if it
        had, as MediaPipe's older releases do (`mediapipe.solutions.hands`).

    Raises:
      KeypointsError: there is no such file, or its content is something else.
    """
    readers: dict[str, Callable[[Path], list[ImageKeypoints]]] = {
        "er_jax": _read_er_jax,
        "openpose": _read_openpose,
        "mmpose": lambda file: _read_mmpose(file, side),
        "mediapipe": lambda file: _read_mediapipe(file, size_px),
    }
    if kind not in readers:
        raise KeypointsError(f"{kind!r} is no kind of keypoints file; known are {[*readers]}.")
    found = [image for file in _files(path, kind) for image in readers[kind](file)]
    return [_swapped(image) for image in found] if swap_sides else found


def write_keypoints(path: Path, images: Iterable[ImageKeypoints]) -> None:
    """Writes the project's own format; what is not known is left out, absent joints are null."""
    write_json(path, {"format": FORMAT, "images": [_image_entry(image) for image in images]})


class FileDetections:
    """Hands found by another detector, by a picture's path: the path, its name or its stem."""

    def __init__(self, path: Path, kind: str = "er_jax", **options: Any):
        """Reads the file; options as of `read_keypoints`."""
        self._path = path
        self._images = read_keypoints(path, kind, **options)

    def of(self, image: Path) -> ImageKeypoints:
        """The hands of a picture.

        Raises:
          KeypointsError: the file says nothing of this picture, or of several that it may be.
        """
        ways: tuple[Callable[[Path], str], ...] = (str, lambda p: p.name, lambda p: p.stem)
        for way in ways:
            found = [each for each in self._images if way(Path(each.image)) == way(image)]
            if len(found) == 1:
                return found[0]
            if found:
                raise KeypointsError(
                    f"{self._path}: {len(found)} entries may be of {image}, such as "
                    f"{found[0].image!r} and {found[1].image!r}. Give each picture once, by path."
                )
        raise KeypointsError(
            f"{self._path}: nothing of {image}. Its `image` must be the picture's path or name; an "
            "empty list of `hands` says that none was found."
        )


def _files(path: Path, kind: str) -> list[Path]:
    if kind == "er_jax" or not path.is_dir():
        return [path]
    pattern = "*_keypoints.json" if kind == "openpose" else "*.json"
    files = sorted(path.glob(pattern))
    if not files:
        raise KeypointsError(f"{path}: no {pattern} in this folder. Name the folder of {kind}'s.")
    return files


def _decode(path: Path, shape: type[T], kind: str) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=shape)
    except FileNotFoundError:
        raise KeypointsError(f"{path}: no such file of keypoints.") from None
    except OSError as error:
        raise KeypointsError(f"{path}: cannot be read ({error.strerror}).") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise KeypointsError(
            f"{path}: {error}. er_jax/detection/keypoints_file.py describes what a file of kind "
            f"{kind!r} looks like."
        ) from None


def _read_er_jax(path: Path) -> list[ImageKeypoints]:
    images = []
    for i, image in enumerate(_decode(path, _File, "er_jax").images):
        hands = []
        for h, hand in enumerate(image.hands):
            points = [point or [math.nan, math.nan, 0.0] for point in hand.keypoints_px]
            full = np.array([[*point, 1.0][:3] for point in points])
            hands.append(
                _hand(
                    f"{path}: images[{i}].hands[{h}]",
                    hand.side,
                    full,
                    score=hand.score,
                    side_probability=hand.side_probability,
                    relative_depth_px=hand.relative_depth_px,
                    joints_m=hand.joints_m,
                )
            )
        if image.size_px is not None and min(image.size_px) < 1:
            raise KeypointsError(f"{path}: images[{i}].size_px is {image.size_px}.")
        images.append(
            ImageKeypoints(
                image.image, hands, image.size_px, image.focal_px, image.principal_point_px
            )
        )
    return images


def _read_openpose(path: Path) -> list[ImageKeypoints]:
    hands = []
    for p, person in enumerate(_decode(path, _OpenPoseFile, "openpose").people):
        sides: tuple[tuple[Side, list[float]], ...] = (
            ("right", person.hand_right_keypoints_2d),
            ("left", person.hand_left_keypoints_2d),
        )
        for side, numbers in sides:
            place = f"{path}: people[{p}].hand_{side}_keypoints_2d"
            if len(numbers) not in (0, 63):
                raise KeypointsError(
                    f"{place}: {len(numbers)} numbers instead of 21 × (x, y, score)."
                )
            points = np.reshape(numbers, (-1, 3)).astype(np.float64)
            if points[:, 2].any():  # zeros: this hand was not seen
                hands.append(_hand(place, side, points))
    return [ImageKeypoints(path.stem.removesuffix("_keypoints"), hands)]


_COCO_WHOLE_BODY = 133
_COCO_HANDS: tuple[tuple[Side, int], ...] = (("right", 112), ("left", 91))


def _read_mmpose(path: Path, side: Side | None) -> list[ImageKeypoints]:
    hands = []
    for i, instance in enumerate(_decode(path, list[_MMPoseInstance], "mmpose")):
        place = f"{path}: [{i}]"
        count = len(instance.keypoints)
        if count != len(instance.keypoint_scores):
            raise KeypointsError(
                f"{place}: {count} keypoints, but {len(instance.keypoint_scores)} keypoint_scores."
            )
        xy = np.array([point[:2] for point in instance.keypoints], np.float64).reshape(-1, 2)
        points = np.column_stack([xy, np.clip(instance.keypoint_scores, 0, 1)])  # some pass 1
        if count == _COCO_WHOLE_BODY:
            hands += [_hand(place, s, points[start : start + 21]) for s, start in _COCO_HANDS]
        elif count != 21:
            raise KeypointsError(
                f"{place}: {count} keypoints; known are the 133 of COCO-WholeBody and the 21 of a "
                "hand. Take a model for one of them."
            )
        elif side is None:
            raise KeypointsError(
                f"{place}: 21 keypoints of a hand do not tell its side: give `side`."
            )
        else:
            hands.append(_hand(place, side, points))
    return [ImageKeypoints(path.stem, hands)]


def _read_mediapipe(path: Path, size_px: tuple[int, int] | None) -> list[ImageKeypoints]:
    found = _decode(path, _MediaPipeFile, "mediapipe")
    normalised = found.hand_landmarks if found.hand_landmarks is not None else found.landmarks
    world = found.hand_world_landmarks or found.worldLandmarks
    if normalised is None:
        raise KeypointsError(f"{path}: neither `hand_landmarks` nor `landmarks` in it.")
    if size_px is None:
        raise KeypointsError(
            f"{path}: MediaPipe's positions are fractions of the picture: give its `size_px`."
        )
    if len(found.handedness) != len(normalised) or len(world or normalised) != len(normalised):
        raise KeypointsError(f"{path}: handedness and landmarks are not of as many hands.")
    hands = []
    for h, (categories, landmarks) in enumerate(zip(found.handedness, normalised, strict=True)):
        place = f"{path}: hand {h}"
        name = categories[0].category_name or categories[0].categoryName if categories else ""
        if name not in ("Right", "Left"):
            raise KeypointsError(f"{place}: its handedness is {name!r} instead of Right or Left.")
        xyz = np.array([[each.x, each.y, each.z] for each in landmarks])
        hands.append(
            _hand(
                place,
                "right" if name == "Right" else "left",
                np.column_stack([xyz[:, :2] * size_px - 0.5, np.ones(21)]),
                side_probability=categories[0].score,
                relative_depth_px=(xyz[:, 2] - xyz[0, 2]) * size_px[0],
                joints_m=[[each.x, each.y, each.z] for each in world[h]] if world else None,
            )
        )
    return [ImageKeypoints(path.stem, hands, size_px)]


def _hand(
    place: str,
    side: Side,
    points: np.ndarray,
    *,
    score: float | None = None,
    side_probability: float = 1.0,
    relative_depth_px: Any = None,
    joints_m: Any = None,
) -> DetectedHand:
    """A hand of (21, 3) x, y, confidence; the score where none is given: their mean confidence."""
    confidence = points[:, 2]
    known = confidence > 0
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise KeypointsError(f"{place}: a keypoint's confidence is not between 0 and 1.")
    optional = [np.array(v, np.float64) for v in (relative_depth_px, joints_m) if v is not None]
    if not all(np.isfinite(values).all() for values in (points[known], *optional)):
        raise KeypointsError(f"{place}: a number is not finite; an unknown keypoint is null.")
    if not known.any():
        raise KeypointsError(f"{place}: no keypoint is known. Leave this hand out.")
    keypoints = np.where(known[:, None], points[:, :2], np.nan)
    return DetectedHand(
        side=side,
        side_probability=side_probability,
        score=float(confidence.mean()) if score is None else score,
        box_px=box_around(keypoints),
        keypoints_px=keypoints,
        confidence=confidence,
        relative_depth_px=None if relative_depth_px is None else np.array(relative_depth_px),
        joints_m=None if joints_m is None else np.array(joints_m),
    )


def _swapped(image: ImageKeypoints) -> ImageKeypoints:
    other: dict[Side, Side] = {"right": "left", "left": "right"}
    hands = [dataclasses.replace(hand, side=other[hand.side]) for hand in image.hands]
    return dataclasses.replace(image, hands=hands)


def _image_entry(image: ImageKeypoints) -> dict[str, Any]:
    optional = {
        "size_px": image.size_px,
        "focal_px": image.focal_px,
        "principal_point_px": image.principal_point_px,
    }
    return {
        "image": image.image,
        **{name: list(value) for name, value in optional.items() if value is not None},
        "hands": [_hand_entry(hand) for hand in image.hands],
    }


def _hand_entry(hand: DetectedHand) -> dict[str, Any]:
    points = np.column_stack([hand.keypoints_px, hand.confidence])
    known = ~np.isnan(points).any(axis=1) & (points[:, 2] > 0)
    optional = {"relative_depth_px": hand.relative_depth_px, "joints_m": hand.joints_m}
    return {
        "side": hand.side,
        "side_probability": float(hand.side_probability),
        "score": float(hand.score),
        "keypoints_px": [
            point.tolist() if is_known else None
            for point, is_known in zip(points, known, strict=True)
        ],
        **{name: value.tolist() for name, value in optional.items() if value is not None},
    }
