"""Train, evaluate, or predict with, the ER network.

    python -m er_jax.main --config configs/ih26m.py --workdir RUN --config.data_dir=DATASETS
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --mode=eval …
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --mode=predict A.jpg B.jpg …

Every field of the config can be set with `--config.a.b=value`. The exit code is 0 when the job is
done, 75 when a signal stopped a training that the same command goes on with.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from er_jax.jobs import EXIT_STOPPED, log_to, run_evaluation, run_prediction, run_training

CONFIG = config_flags.DEFINE_config_file("config", None, "the run's config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run: checkpoints, logs, results")
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval", "predict"], "what to do")
STEP = flags.DEFINE_integer("step", None, "checkpoint to evaluate or predict with; None: the best")
SPLIT = flags.DEFINE_string("split", None, "split to evaluate; None: config.data.test_split")
IMAGES = flags.DEFINE_multi_string(
    "images", [], "a picture to predict, as often as wanted; or name them without a flag"
)
BOX = flags.DEFINE_multi_string("box", [], "x,y,w,h in pixels around both hands, one a picture")
OUTPUT = flags.DEFINE_string("output", None, "where predictions go; None: WORKDIR/predictions")


def main(argv: list[str]) -> None:
    config, workdir = CONFIG.value, Path(str(WORKDIR.value))
    workdir.mkdir(parents=True, exist_ok=True)
    log_to(workdir / "log.txt")
    match MODE.value:
        case "train":
            if not run_training(config, workdir).finished:
                sys.exit(EXIT_STOPPED)
        case "eval":
            run_evaluation(config, workdir, step=STEP.value, split=SPLIT.value)
        case "predict":
            boxes = [[float(number) for number in box.split(",")] for box in BOX.value] or None
            output = Path(OUTPUT.value) if OUTPUT.value else workdir / "predictions"
            pictures = [Path(name) for name in [*IMAGES.value, *argv[1:]]]
            run_prediction(config, workdir, pictures, boxes, output, step=STEP.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
