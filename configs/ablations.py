"""The network with and without its modules, small enough for many runs on two CPU cores.

    python -m er_jax.commands.ablations --config configs/ablations.py --workdir ABLATIONS \
        --config.run.data_dir=DATASETS
"""

from ml_collections import ConfigDict

from er_jax.configs.demo import get_config as demo


def get_config() -> ConfigDict:
    """`run` is the config that all runs share; each variant changes fields of it by their path."""
    run = demo()
    run.epochs = 8
    run.log_every_steps = 50
    run.model.backbone_width = 16
    run.model.input_size = 96
    run.model.feature_dim = 64
    run.validation.every_epochs = run.epochs  # at the end only
    run.checkpoint.every_steps = 1_000_000  # at the end of epochs only

    config = ConfigDict()
    config.run = run
    config.seeds = (0, 1, 2, 3, 4)  # of the weights, the order of the data, and its augmentation
    config.variants = (  # the others are compared with the first
        ("full network", {}),
        ("without DeSim", {"model.use_desim": False}),
        ("without DeOcc", {"model.use_deocc": False}),
        ("without FuseJoint", {"model.use_fusejoint": False}),
        (
            "without any of them",
            {"model.use_desim": False, "model.use_deocc": False, "model.use_fusejoint": False},
        ),
        ("without presence", {"model.use_presence": False}),
    )
    return config.lock()
