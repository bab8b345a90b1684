"""Two lines of Python: an engine with its parts loaded, kept for the next call."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from er_jax.detection import Detector
from er_jax.detection.mediapipe_hands import MediaPipeHands
from er_jax.inference.boxes import Box
from er_jax.mano import load_hands
from er_jax.photographs.engine import NETWORK_ERROR_M, Engine
from er_jax.photographs.photograph import Photograph, Picture
from er_jax.photographs.result import Reconstruction
from er_jax.utils.cache import cache_dir, keep_compiled_programs


def load(
    *,
    weights: Path | str | None = None,
    mano_dir: Path | str | None = None,
    detect: bool = True,
    detector: Detector | None = None,
    detector_dir: Path | str | None = None,
    fit_keypoints: bool = True,
    step: int | None = None,
    hands: str = "present",
    visualize: bool = False,
) -> Engine:
    """An engine for many pictures: `engine(picture)`, `engine.many(pictures)`.

    Args:
      weights: a trained network: its run's folder, or an exported `er.safetensors`; None: the hands
        are fitted to the detector's keypoints alone.
      mano_dir: folder of MANO's files; None: the stand-in hand.
      detect: False: a box or the detected hands come with each picture.
      detector: any other than MediaPipe's networks.
      detector_dir: folder of MediaPipe's two networks; None: the user's cache, where they are put
        at first use.
      fit_keypoints: False: the hands are the network's, at the places that the detector finds.
      step: of the run's checkpoint; None: the best.
      hands: of pictures with a box: "present", those that the network says are there, or "both".
      visualize: keep what `draw_attention_maps` shows of the network.

    Raises:
      UserError: a file is not there, or not what it should be; the message says which and what to
        do.
    """
    keep_compiled_programs(cache_dir() / "compiled")
    models = load_hands(mano_dir)
    network, error_m, confidence, sha256 = None, NETWORK_ERROR_M, None, None
    if weights is not None:
        # Flax and the networks: a third of the time that it takes to import this module.
        from er_jax.inference.attention_maps import outputs_to_visualize
        from er_jax.inference.pipeline import Pipeline
        from er_jax.models import ERConfig
        from er_jax.models.functional import fingerprint, network_of
        from er_jax.training.load import load_trained, recorded_run
        from er_jax.training.run_record import validation_error_mm

        source = Path(weights)
        record = recorded_run(source, step)
        config = ConfigDict(record["config"])
        collect = outputs_to_visualize(ERConfig.from_dict(config.model)) if visualize else ()
        trained = load_trained(config, source, step, models)
        net = network_of(trained.config, trained.weights)
        network = Pipeline(net, models, collect=collect)
        confidence, sha256 = trained.calibration, fingerprint(trained.weights)
        if (error_mm := validation_error_mm(record)) is not None:
            error_m = error_mm / 1000
    if detector is None and detect:
        detector = MediaPipeHands(None if detector_dir is None else Path(detector_dir))
    return Engine(
        models,
        detector=detector,
        network=network,
        fit_keypoints=fit_keypoints,
        network_error_m=error_m,
        confidence=confidence,
        hands_shown=hands,
        weights_sha256=sha256,
    )


def reconstruct(
    pictures: Picture | Photograph | list[Picture | Photograph],
    *,
    boxes: Sequence[Box] | None = None,
    focal_px: float | tuple[float, float] | None = None,
    principal_point_px: tuple[float, float] | None = None,
    **options: Any,
) -> Reconstruction | list[Reconstruction]:
    """The hands in a picture, or in each of a list of pictures.

        import er_jax
        result = er_jax.reconstruct("photo.jpg")

    Args:
      pictures: a path, an RGB array (height, width, 3) of bytes or a Pillow image; a list of them
        is a batch.
      boxes: x, y, width, height around both hands of each picture, for the network alone; None:
        hands are detected.
      focal_px: of the pictures' camera, one number or (x, y); None: by EXIF, or assumed.
      principal_point_px: x, y; None: the picture's middle.
      **options: see `load`; an engine is loaded once for the same options.
    """
    engine = _loaded(**options)
    several = isinstance(pictures, list)
    given = pictures if isinstance(pictures, list) else [pictures]
    results = engine.many(given, boxes, focal_px=focal_px, principal_point_px=principal_point_px)
    return results if several else results[0]


_loaded = functools.lru_cache(maxsize=4)(load)
