"""Describe, check, train, evaluate, predict with, or export the ER network.

    python -m er_jax.main --config configs/ih26m.py --mode=describe
    python -m er_jax.main --config configs/ih26m.py --mode=check --config.data_dir=DATASETS
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --config.data_dir=DATASETS
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --mode=eval …
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --mode=predict A.jpg B.jpg …
    python -m er_jax.main --config configs/ih26m.py --workdir RUN --mode=export

Every field of the config can be set with `--config.a.b=value`. Under `srun` (SLURM) or `mpirun`
(Open MPI), one task for each device, processes find each other; elsewhere start each with
`--coordinator=HOST:PORT --processes=N --process_id=I`.

Exit codes: 0 the job is done; 75 a signal stopped a training that the same command goes on with;
65 data or hand files that cannot be read; 66 a file that is not there; 71 a worker process died;
74 the disk; 76 updates that are not finite; 78 a setting that is wrong or does not fit the run;
1 a fault of this program.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from er_jax.utils.arguments import numbers
from er_jax.utils.config_flags import parse_flags
from er_jax.utils.errors import EXIT_STOPPED

# What needs JAX is imported where a command begins: a mistyped flag is told without waiting for it.

CONFIG = config_flags.DEFINE_config_file("config", None, "the run's config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run: checkpoints, logs, results")
MODES = ["describe", "check", "train", "eval", "predict", "export"]
MODE = flags.DEFINE_enum("mode", "train", MODES, "what to do")
WEIGHTS = flags.DEFINE_string(
    "weights", None, "an exported er.safetensors to use, or to start from, instead of a checkpoint"
)
STEP = flags.DEFINE_integer("step", None, "checkpoint to use; None: the best")
PROFILE = flags.DEFINE_string("profile", "0,0", "first,last training step to trace")
SPLIT = flags.DEFINE_string("split", None, "split to evaluate; None: config.data.test_split")
PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "with --mode=eval: file to write the network's predictions to"
)
SUBMISSION = flags.DEFINE_string(
    "submission", None, "with --mode=eval on FreiHAND: zip file to write for its server"
)
IMAGES = flags.DEFINE_multi_string(
    "images", [], "an image to predict, as often as wanted; or name them without a flag"
)
BOX = flags.DEFINE_multi_string("box", [], "x,y,w,h in pixels around both hands, one an image")
SHOWN_HANDS = flags.DEFINE_enum(
    "hands", "present", ["present", "both"], "with --box: those that are there, or both"
)
VISUALIZE = flags.DEFINE_bool(
    "visualize", False, "also draw heatmaps and attention of each prediction"
)
OUTPUT = flags.DEFINE_string(
    "output", None, "folder of what is made; None: WORKDIR/predictions or WORKDIR/export"
)
ALLOW_CHANGES = flags.DEFINE_bool(
    "allow_changes", False, "go on with a run although its settings, code or data differ"
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes; auto: as JAX finds it"
)
PROCESSES = flags.DEFINE_integer("processes", None, "how many processes there are")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this one is, from 0")


@flags.multi_flags_validator(
    ["mode", "workdir"], "--workdir is needed, except by --mode=describe and --mode=check"
)
def _has_workdir(values: dict[str, str | None]) -> bool:
    return values["workdir"] is not None or values["mode"] in ("describe", "check")


def main(argv: list[str]) -> None:
    from er_jax.commands.exit_codes import exit_with_message
    from er_jax.utils import distributed

    with exit_with_message():
        distributed.join_processes(COORDINATOR.value, PROCESSES.value, PROCESS_ID.value)
        run(argv)


def run(argv: list[str]) -> None:
    from er_jax.commands import check, describe, evaluate, export, logs, photographs, train
    from er_jax.utils import distributed

    config = CONFIG.value
    if MODE.value == "describe":
        describe.run_description(config)
        return
    if MODE.value == "check":
        check.run_check(config)
        return
    workdir = Path(str(WORKDIR.value))
    weights = Path(WEIGHTS.value) if WEIGHTS.value else None
    source = weights or workdir
    logs.prepare(workdir, cache_compilation=MODE.value == "predict")
    first = distributed.is_first_process()
    match MODE.value:
        case "train":
            if weights is not None:
                config.init_from = str(weights)
            profile = numbers("--profile", PROFILE.value, 2) or [0, 0]
            first_step, last_step = map(int, profile)
            outcome = train.run_training(
                config, workdir, (first_step, last_step), allow_changes=ALLOW_CHANGES.value
            )
            if not outcome.finished:
                sys.exit(EXIT_STOPPED)
        case "eval":
            file = Path(PREDICTIONS.value) if PREDICTIONS.value else None
            evaluate.run_evaluation(
                config,
                workdir,
                step=STEP.value,
                split=SPLIT.value,
                predictions=file,
                weights=weights,
                submission=Path(SUBMISSION.value) if SUBMISSION.value else None,
            )
        case "predict" if first:
            photographs.run_photographs(
                [Path(name) for name in [*IMAGES.value, *argv[1:]]],
                Path(OUTPUT.value) if OUTPUT.value else workdir / "predictions",
                weights=source,
                step=STEP.value,
                mano_dir=Path(config.mano_dir) if config.mano_dir else None,
                boxes=[numbers("--box", box, 4) or [] for box in BOX.value] or None,
                hands=SHOWN_HANDS.value,
                visualize=VISUALIZE.value,
            )
        case "export" if first:
            output = Path(OUTPUT.value) if OUTPUT.value else workdir / "export"
            export.run_export(config, source, output, step=STEP.value)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
