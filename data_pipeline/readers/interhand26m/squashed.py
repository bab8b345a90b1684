"""Cameras whose pictures were resized to another shape than the one they are calibrated for.

The published 400412 has 512×334 pictures among 334×512 ones, and the calibration of the latter
(InterHand2.6M, issues 100 and 157): every joint is projected beside the hand.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from data_pipeline.readers.interhand26m.files import Cameras, Images

CLEARLY = 0.1
"""Share of the image by which a principal point must lie nearer to the middle of another shape.

Published ones lie within 0.09 of their own image's middle; in the wrong one of 512×334 and 334×512
they are off by more than 0.2. (Its middle half would not do: it ends at 250 of 334 pixels, and they
lie between 240 and 260.)
"""

Size = tuple[int, int]  # width and height
Squashed = Literal["drop", "mend"]
"""What is done with their images."""


@dataclasses.dataclass(frozen=True)
class SquashedCamera:
    """Images of a camera that are of another shape than it is calibrated for."""

    capture: str
    camera: str
    size_px: Size
    calibrated_px: Size
    """The shape of its capture's other cameras, which its principal point is in the middle of."""
    camera_row: int
    images: np.ndarray
    """Rows of `Images`."""


def squashed_cameras(images: Images, cameras: Cameras) -> list[SquashedCamera]:
    """Finds cameras of another image shape than the usual one of their capture, yet made for it.

    Usual is a shape that at least as many of a capture's cameras have. A camera that is turned by
    a quarter, its calibration with it, is none of these.
    """
    columns = [images.text["capture"], images.text["camera"], *images.size_px.T]
    groups, group = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    sizes_of_capture: dict[int, Counter[Size]] = defaultdict(Counter)
    for capture, _, width, height in groups.tolist():
        sizes_of_capture[capture][width, height] += 1
    found = []
    for row, (capture, camera, width, height) in enumerate(groups.tolist()):
        sizes = sizes_of_capture[capture]
        usual = [s for s in sizes if s != (width, height) and sizes[s] >= sizes[width, height]]
        names = images.names[capture].decode(), images.names[camera].decode()
        camera_row = cameras.rows.get(names)
        if not usual or camera_row is None:
            continue
        point = cameras.princpt_px[camera_row]
        nearest = min(usual, key=lambda size: _off_middle(point, size))
        if _off_middle(point, (width, height)) > _off_middle(point, nearest) + CLEARLY:
            rows = np.flatnonzero(group.ravel() == row)
            found.append(SquashedCamera(*names, (width, height), nearest, camera_row, rows))
    return found


def mended(
    cameras: Cameras, camera_row: np.ndarray, squashed: Sequence[SquashedCamera]
) -> tuple[Cameras, np.ndarray]:
    """The cameras with one more for each squashed one, and each image's row among them.

    Focal length and principal point are scaled as the image was, so that what is projected lies on
    the squashed hand.
    """
    if not squashed:
        return cameras, camera_row
    rows = np.array([one.camera_row for one in squashed])
    scale = np.array([np.divide(one.size_px, one.calibrated_px) for one in squashed])
    camera_row = camera_row.copy()
    for place, one in enumerate(squashed):
        camera_row[one.images] = len(cameras.focal_px) + place
    more = dataclasses.replace(
        cameras,
        rotation=np.concatenate([cameras.rotation, cameras.rotation[rows]]),
        translation_mm=np.concatenate([cameras.translation_mm, cameras.translation_mm[rows]]),
        focal_px=np.concatenate([cameras.focal_px, scale * cameras.focal_px[rows]]),
        princpt_px=np.concatenate([cameras.princpt_px, scale * cameras.princpt_px[rows]]),
    )
    return more, camera_row


def report_entry(one: SquashedCamera, image: np.ndarray, squashed: Squashed) -> dict[str, Any]:
    """A squashed camera as plain JSON; `image` has the images of the annotations that count."""
    return {
        "capture": one.capture,
        "camera": one.camera,
        "size_px": one.size_px,
        "calibrated_px": one.calibrated_px,
        "annotations": int(np.isin(image, one.images).sum()),
        "done": {"drop": "dropped", "mend": "intrinsics mended"}[squashed],
    }


def squashed_note(entry: Mapping[str, Any]) -> str:
    """A line on one of these."""
    (width, height), (usual_width, usual_height) = entry["size_px"], entry["calibrated_px"]
    return (
        f"camera {entry['camera']} of capture {entry['capture']}: images of {width}×{height}, "
        f"calibrated for {usual_width}×{usual_height} as the capture's others: "
        f"{entry['annotations']:,} annotations, {entry['done']} (--squashed)"
    )


def _off_middle(point: np.ndarray, size: Size) -> float:
    """The larger share of the image's width or height by which a point is off its middle."""
    return float(np.abs(point / size - 0.5).max())
