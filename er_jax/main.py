"""Describe, train, evaluate, predict with, or export the ER network.

    python -m er_jax.main --config configs/ih26m.py --mode=describe
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --config.data_dir=DATASETS
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --mode=eval …
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --mode=predict A.jpg B.jpg …
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --mode=export

Every field of the config can be set with `--config.a.b=value`. The exit code is 0 when the job is
done, 75 when a signal stopped a training that the same command goes on with.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from er_jax.jobs import (
    EXIT_STOPPED,
    prepare,
    run_description,
    run_evaluation,
    run_export,
    run_prediction,
    run_training,
)

CONFIG = config_flags.DEFINE_config_file("config", None, "the run's config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run: checkpoints, logs, results")
MODES = ["describe", "train", "eval", "predict", "export"]
MODE = flags.DEFINE_enum("mode", "train", MODES, "what to do")
STEP = flags.DEFINE_integer("step", None, "checkpoint to use; None: the best")
PROFILE = flags.DEFINE_list("profile", ["0", "0"], "first,last training step to trace")
SPLIT = flags.DEFINE_string("split", None, "split to evaluate; None: config.data.test_split")
IMAGES = flags.DEFINE_multi_string(
    "images", [], "a picture to predict, as often as wanted; or name them without a flag"
)
BOX = flags.DEFINE_multi_string("box", [], "x,y,w,h in pixels around both hands, one a picture")
INSIDE = flags.DEFINE_bool("inside", False, "also draw heatmaps and attention of each prediction")
OUTPUT = flags.DEFINE_string(
    "output", None, "folder of what is made; None: WORKDIR/predictions or WORKDIR/export"
)


@flags.multi_flags_validator(["mode", "workdir"], "--workdir is needed, except by --mode=describe")
def _has_workdir(values: dict[str, str | None]) -> bool:
    return values["workdir"] is not None or values["mode"] == "describe"


def main(argv: list[str]) -> None:
    config = CONFIG.value
    if MODE.value == "describe":
        run_description(config)
        return
    workdir = Path(str(WORKDIR.value))
    prepare(workdir)
    match MODE.value:
        case "train":
            first, last = map(int, PROFILE.value)
            if not run_training(config, workdir, (first, last)).finished:
                sys.exit(EXIT_STOPPED)
        case "eval":
            run_evaluation(config, workdir, step=STEP.value, split=SPLIT.value)
        case "predict":
            boxes = [[float(number) for number in box.split(",")] for box in BOX.value] or None
            output = Path(OUTPUT.value) if OUTPUT.value else workdir / "predictions"
            pictures = [Path(name) for name in [*IMAGES.value, *argv[1:]]]
            run_prediction(
                config, workdir, pictures, boxes, output, step=STEP.value, inside=INSIDE.value
            )
        case "export":
            output = Path(OUTPUT.value) if OUTPUT.value else workdir / "export"
            run_export(config, workdir, output, step=STEP.value)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
