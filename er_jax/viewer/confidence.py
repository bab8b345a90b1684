"""How sure hands and joints are, as colours and as text."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from er_jax.video.track import HandTrack
from er_jax.viewer.result import ShownHand

SURE_TO_UNSURE = ((255, 255, 255), (255, 176, 190), (226, 50, 110), (96, 0, 60))
"""Colours of joints at 0 to `UNSURE_M`, evenly spaced: white to dark red."""
UNSURE_M = 0.03
"""Standard deviation from which on a joint has the last colour."""
NOT_KNOWN = (128, 128, 128)


def joint_colours(sigma_m: Float[np.ndarray, "n"]) -> UInt8[np.ndarray, "n 3"]:
    """RGB of joints by their standard deviation, metres; grey where it is not a number."""
    known = np.isfinite(sigma_m)
    share = np.clip(np.where(known, sigma_m, 0) / UNSURE_M, 0, 1)
    stops = np.linspace(0, 1, len(SURE_TO_UNSURE))
    channels = [np.interp(share, stops, channel) for channel in zip(*SURE_TO_UNSURE, strict=True)]
    colours = np.stack(channels, axis=-1).round().astype(np.uint8)
    colours[~known] = NOT_KNOWN
    return colours


def label_of(hand: ShownHand, place: int) -> str:
    """What stands at a hand's wrist: its name, and how sure it is that it is there."""
    name = hand.label.replace("_", " ")
    return f"{name} {score_of(hand.track, place)}"


def score_of(track: HandTrack, place: int) -> str:
    """The score of one of a track's frames; a filled one's pose is between those around it."""
    if track.filled[place]:
        return "not seen"
    score = float(track.score[place])
    return f"{score:.2f}" if np.isfinite(score) else "–"


def frame_table(hands: Sequence[ShownHand], frame: int) -> list[tuple[str, ...]]:
    """A head, and a row a hand of a frame: name, score, joints' and wrist's standard deviation.

    A hand that is not known in the frame has dashes.
    """
    rows: list[tuple[str, ...]] = [("hand", "score", "joints ±", "wrist ±")]
    for hand in hands:
        name = hand.label.replace("_", " ")
        place = hand.at(frame)
        if place is None:
            rows.append((name, "–", "–", "–"))
            continue
        joints = _millimetres(hand.track.joint_sigma_m[place, 1:])
        depth = _millimetres(hand.track.depth_sigma_m[place : place + 1])
        rows.append((name, score_of(hand.track, place), joints, depth))
    return rows


def clip_table(hands: Sequence[ShownHand], frames: int) -> list[tuple[str, ...]]:
    """A head, and a row a hand of a whole clip: its means and medians.

    Args:
      hands: of the clip.
      frames: of the clip, as a number.
    """
    rows: list[tuple[str, ...]] = [("hand", "seen", "score", "joints ±", "wrist ±")]
    for hand in hands:
        seen = ~hand.track.filled
        scores = hand.track.score[seen & np.isfinite(hand.track.score)]
        rows.append(
            (
                hand.label.replace("_", " "),
                f"{int(seen.sum())} of {frames}",
                f"{scores.mean():.2f}" if len(scores) else "–",
                _millimetres(hand.track.joint_sigma_m[:, 1:]),
                _millimetres(hand.track.depth_sigma_m),
            )
        )
    return rows


def _millimetres(sigma_m: Float[np.ndarray, "*n"]) -> str:
    known = sigma_m[np.isfinite(sigma_m)]
    return f"{1000 * float(np.median(known)):.0f} mm" if known.size else "–"
