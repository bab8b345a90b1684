"""The report's charts as inline SVG."""

import dataclasses
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from er_jax.evaluation.bootstrap import Interval
from er_jax.evaluation.breakdowns import Breakdown
from er_jax.evaluation.calibration import LEFT_OUT, Reliability
from er_jax.evaluation.summary import PCK_THRESHOLDS_MM
from er_jax.mano import HAND21, HANDS, MANO16, HandModel, mano_forward

_COLOURS = ("#1f6fb4", "#d9772b", "#4b9b57", "#9b59a6", "#8c8c8c", "#b33c3c")
_SPREAD = {"Index": 0.17, "Ring": -0.17, "Pinky": -0.36}  # radians towards the index's side
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # names are anybody's: a $ is a dollar
}
_LONGEST_NAME = 48


@rc_context(_STYLE)
def pck_chart(title: str, curves: Mapping[str, Sequence[Any]]) -> str:
    """Share of joints within a distance, one line a predictor."""
    figure = Figure(figsize=(5.6, 2.9 + 0.2 * len(curves)), layout="constrained")
    axes = figure.add_subplot(
        title=title, xlabel="error threshold [mm]", ylabel="share of joints", ylim=(0, 1)
    )
    for colour, (name, curve) in zip(_colours(len(curves)), curves.items(), strict=True):
        if curve[0] is not None:
            axes.plot(PCK_THRESHOLDS_MM, curve, label=_short(name), color=colour)
    axes.set_xlim(0, PCK_THRESHOLDS_MM[-1])
    axes.grid(alpha=0.3)
    if axes.lines:
        figure.legend(frameon=False, loc="outside lower left")  # names may be as long as the chart
    return _svg(figure)


@rc_context(_STYLE)
def breakdown_chart(breakdown: Breakdown, metrics: Sequence[str]) -> str:
    """Bars of some metrics for each group, the first group uppermost."""
    groups = breakdown.groups
    thick = 0.8 / max(len(metrics), 1)
    figure = Figure(figsize=(8.4, 0.42 * len(groups) + 0.9), layout="constrained")
    axes = figure.add_subplot(xlabel="mm")
    for index, (metric, colour) in enumerate(zip(metrics, _colours(len(metrics)), strict=True)):
        lengths = [group[metric]["value"] or 0 for group in groups.values()]
        places = np.arange(len(groups)) + (index - (len(metrics) - 1) / 2) * thick
        axes.barh(places, lengths, thick, label=metric, color=colour)
    labels = [f"{_short(label)} ({group['samples']:,})" for label, group in groups.items()]
    axes.set_yticks(range(len(groups)), labels)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    if axes.patches:
        figure.legend(frameon=False, loc="outside right upper")
    return _svg(figure)


@rc_context(_STYLE)
def reliability_chart(found: Reliability) -> str:
    """The errors beside what was expected of them, and what leaving out the least sure gains."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    expected, observed, _ = zip(*found.bins, strict=True)
    end = 1.1 * max(*expected, *observed)
    left.plot([0, end], [0, end], color="#999999", linewidth=1, label="as expected")
    left.plot(expected, observed, "o-", color=_COLOURS[0], markersize=4, label="a tenth of joints")
    left.set(xlabel="expected error [mm]", ylabel="error [mm]", xlim=(0, end), ylim=(0, end))
    left.set_aspect("equal")
    shares = [100 * share for share in LEFT_OUT]
    right.plot(shares, found.kept_mm, "o-", color=_COLOURS[0], markersize=4, label="least sure")
    right.plot(shares, found.best_mm, "o--", color="#999999", markersize=4, label="worst")
    right.set(xlabel="joints left out [%]", ylabel="mean error of the others [mm]")
    right.set_ylim(0, 1.1 * max(found.kept_mm))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="lower right" if axes is left else "lower left")
    return _svg(figure)


@rc_context(_STYLE)
def seeds_chart(
    title: str, values: Mapping[str, Sequence[float]], means: Sequence[Interval]
) -> str:
    """One line a variant, the first uppermost: a dot a seed, and the mean with its interval."""
    figure = Figure(figsize=(8.4, 0.45 * len(values) + 1.1), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="mm")
    for place, (of_seeds, mean) in enumerate(zip(values.values(), means, strict=True)):
        low, high = (mean.value if end is None else end for end in (mean.low, mean.high))
        spread = [[mean.value - low], [high - mean.value]]
        axes.errorbar(
            mean.value, place, xerr=spread, fmt="D", color=_COLOURS[0], markersize=5, capsize=4
        )
        axes.plot(of_seeds, [place + 0.22] * len(of_seeds), "o", color="#777777", markersize=3.5)
    axes.set_yticks(range(len(values)), list(map(_short, values)))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


@rc_context(_STYLE)
def hand_chart(
    drawings: Sequence["HandDrawing"],
    errors_mm: Float[np.ndarray, "2 21"],
    title: str,
    limit_mm: float,
) -> str:
    """Each joint's error as a bar at its place on an open hand, the left hand left.

    Args:
      drawings: of the right and the left hand.
      errors_mm: right, left; NaN where there is none.
      limit_mm: error of the longest bar, so that several charts can share a scale; positive.
    """
    figure = Figure(figsize=(6.6, 3.9), layout="constrained")
    figure.suptitle(title)
    for axes, side in zip(figure.subplots(1, 2), (1, 0), strict=True):
        for outline in drawings[side].outlines:
            axes.fill(*outline.T, facecolor="#f1e4da", edgecolor="#c9ab98", linewidth=1)
        for name, place, error in zip(HAND21, drawings[side].joints, errors_mm[side], strict=True):
            if np.isfinite(error):
                _joint_bar(axes, place, name, float(error), limit_mm)
        axes.set_title(f"{HANDS[side]} hand", fontsize=9)
        axes.set_aspect("equal")
        axes.axis("off")
    return _svg(figure)


def _joint_bar(axes: Axes, place: np.ndarray, name: str, error_mm: float, limit_mm: float) -> None:
    longest, height = 0.013, 0.004  # metres of the drawn hand
    length = longest * min(error_mm / limit_mm, 1)
    shade = min(error_mm / limit_mm, 1)
    colour = (0.12 + 0.73 * shade, 0.45 - 0.2 * shade, 0.7 - 0.5 * shade)
    axes.barh(place[1], length, height, left=place[0], color=colour)
    axes.plot(*place, marker="o", markersize=2.5, color="#333333")
    axes.annotate(
        f"{error_mm:.1f}",
        (place[0], place[1] + height / 2),
        xytext=(-2, 1),  # above the bar: beside it the next knuckle is too near
        textcoords="offset points",
        va="bottom",
        fontsize=6.5,
        gid=name,
    )


@dataclasses.dataclass(frozen=True)
class HandDrawing:
    """An open hand seen on its back, fingers up; metres."""

    joints: Float[np.ndarray, "21 2"]
    outlines: list[Float[np.ndarray, "N 2"]]


def draw_hands(hands: HandModel) -> list[HandDrawing]:
    """The right and the left hand of a model, to draw on."""
    return [_open_hand(hands, side) for side in range(len(HANDS))]


def _open_hand(hands: HandModel, side: int) -> HandDrawing:
    up, towards_index = _palm_axes(_posed(hands, side, {})[0])
    normal = np.cross(up, towards_index)
    spread = {f"{finger}_1": jaxlie.SO3.exp(angle * normal) for finger, angle in _SPREAD.items()}
    turns = {name: turn.as_matrix() for name, turn in spread.items()}
    joints, vertices = _posed(hands, side, turns)
    across = -towards_index if side == 0 else towards_index  # the right hand's thumb is left
    plane = np.stack([across, up], axis=1)
    faces = np.asarray(hands.faces)[side]
    return HandDrawing(joints @ plane, _outlines(vertices @ plane, faces))


def _posed(
    hands: HandModel, side: int, turns: Mapping[str, Any]
) -> tuple[Float[np.ndarray, "21 3"], Float[np.ndarray, "778 3"]]:
    """Joints and vertices of a flat hand, some of MANO's joints turned, from the wrist."""
    rotations = np.tile(np.eye(3, dtype=np.float32), (2, 16, 1, 1))
    for name, turn in turns.items():
        rotations[:, MANO16.index(name)] = turn
    mesh = jax.jit(mano_forward)(hands, jnp.zeros((2, 10)), jnp.asarray(rotations))
    joints, vertices = np.asarray(mesh.joints)[side], np.asarray(mesh.vertices)[side]
    return joints - joints[0], vertices - joints[0]


def _palm_axes(
    joints: Float[np.ndarray, "21 3"],
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Unit vectors from the wrist to Middle_1, and across it towards the index finger."""
    up = joints[HAND21.index("Middle_1")] - joints[0]
    up = up / np.linalg.norm(up)
    across = joints[HAND21.index("Index_1")] - joints[HAND21.index("Pinky_1")]
    across = across - (across @ up) * up
    return up, across / np.linalg.norm(across)


def _outlines(
    points: Float[np.ndarray, "778 2"], faces: Int[np.ndarray, "F 3"]
) -> list[Float[np.ndarray, "N 2"]]:
    """The silhouette of a mesh, of each of its parts, as polygons, to half a millimetre."""
    per_metre, low = 5000, points.min(0) - 0.002
    pixels = np.rint((points - low) * per_metre).astype(np.int32)
    mask = np.zeros(pixels.max(0)[::-1] + 10, np.uint8)
    for face in pixels[faces]:
        cv2.fillConvexPoly(mask, face, 1)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = (cv2.approxPolyDP(contour, 2.5, closed=True)[:, 0] for contour in contours)
    return [polygon / per_metre + low for polygon in polygons if len(polygon) > 2]


def _colours(count: int) -> list[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]


def _short(name: str) -> str:
    """A name as a chart has room for it, its end kept, which often tells it from others.

    A space goes before a first underscore, whose names matplotlib keeps out of legends.
    """
    line = " ".join(name.encode("utf-8", "backslashreplace").decode("utf-8").split())
    if len(line) > _LONGEST_NAME:
        half = _LONGEST_NAME // 2
        line = f"{line[:half]}…{line[-half:]}"
    return f" {line}" if line.startswith("_") else line


def _svg(figure: Figure) -> str:
    """The drawing alone, without the XML declaration, to stand in a page."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Only the widths of such letters are guessed: who shows the page has a font with them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
