"""The engines that requests may choose from, each loaded when it is first asked for."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from er_jax.detection import DetectedHand, Detector
from er_jax.detection.mediapipe_hands import MediaPipeHands
from er_jax.detection.types import Side
from er_jax.mano import joints_from_vertices, mano_forward
from er_jax.photographs.engine import Engine
from er_jax.photographs.load import load
from er_jax.utils.errors import ConfigError
from er_jax.video.tracking import Tracker

NO_NETWORK = "none"
STAND_IN, MANO = "stand-in", "MANO"
SIDES: tuple[Side, ...] = ("right", "left")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a request chooses; requests of one choice are done together.

    Attributes:
      network: name of the weights, or `NO_NETWORK`.
      hand_model: `STAND_IN` or `MANO`.
      focal_px: x, y; None: see `camera_of`.
      principal_point_px: x, y; None: the picture's middle.
    """

    network: str = NO_NETWORK
    hand_model: str = STAND_IN
    focal_px: tuple[float, float] | None = None
    principal_point_px: tuple[float, float] | None = None


class Engines:
    """Engines by name. To be used by one thread alone.

    Args:
      weights: files or runs of trained networks, by the names that requests use.
      mano_dir: folder of MANO's files; None: there is the stand-in hand alone.
      detector_dir: of the detector's networks.
      detector: any other than MediaPipe's networks, for pictures.

    Raises:
      UserError: the detector's networks are not there.
    """

    def __init__(
        self,
        weights: Mapping[str, Path] | None = None,
        mano_dir: Path | None = None,
        *,
        detector_dir: Path | None = None,
        detector: Detector | None = None,
    ):
        self._weights = dict(weights or {})
        self._mano_dir = mano_dir
        self._detector_dir = detector_dir
        self._detector = detector or MediaPipeHands(detector_dir)
        self._loaded: dict[tuple[str, str], Engine] = {}
        self._quick: MediaPipeHands | None = None
        self.networks = (*self._weights, NO_NETWORK)
        self.hand_models = (STAND_IN,) if mano_dir is None else (MANO, STAND_IN)

    @property
    def usual(self) -> Choice:
        """The choice of who makes none: the first network, and MANO where it is there."""
        return Choice(self.networks[0], self.hand_models[0])

    def check(self, choice: Choice) -> None:
        """Says what is wrong with a choice.

        Raises:
          ConfigError: there is no such network or hand model.
        """
        for name, value, known in (
            ("network", choice.network, self.networks),
            ("hand_model", choice.hand_model, self.hand_models),
        ):
            if value not in known:
                raise ConfigError(f"{name}={value!r}: choose one of {', '.join(map(repr, known))}")

    def of(self, choice: Choice) -> Engine:
        """The engine of a choice.

        Raises:
          UserError: see `check`; or its files are not what they should be.
        """
        self.check(choice)
        key = (choice.network, choice.hand_model)
        if key not in self._loaded:
            self._loaded[key] = load(
                weights=self._weights.get(choice.network),
                mano_dir=self._mano_dir if choice.hand_model == MANO else None,
                detector=self._detector,
            )
        return self._loaded[key]

    def tracker(self) -> Tracker:
        """A fresh tracker of the hands in a clip."""
        if self._quick is None:
            self._quick = MediaPipeHands(self._detector_dir, thorough=False)
        return Tracker(self._quick)


def warm(engine: Engine, pictures: int) -> None:
    """Compiles what pictures of one and of two hands need, so that no request waits for it.

    Args:
      engine: that will be used.
      pictures: most that will be reconstructed at once.
    """
    focal, size = 500.0, 256
    blank = np.zeros((size, size, 3), np.uint8)
    hands = []
    for side in SIDES:
        model = engine.hand_model.hand(side)
        mesh = mano_forward(model, np.zeros(10), np.zeros(48), np.array([0.0, 0.0, 0.8]))
        joints = np.asarray(joints_from_vertices(model, mesh.vertices))
        points = focal * joints[:, :2] / joints[:, 2:] + size / 2
        points[:, 0] += 60 if side == "right" else -60
        low, high = points.min(0), points.max(0)
        box = np.concatenate([low, high - low])
        middle = joints - joints.mean(0)
        hands.append(DetectedHand(side, 0.9, 0.9, box, points, np.ones(21), joints_m=middle))
    for found in (hands, hands[:1]):
        count = 1
        while count <= pictures:
            engine.many([blank] * count, detections=[found] * count, focal_px=focal)
            count *= 2
