"""`configs/ih26m.py` is the paper's recipe: literal numbers, which no default may change."""

from ml_collections import ConfigDict

from data_pipeline.augmentation import AugmentationRange
from er_jax.configs.ih26m import get_config
from er_jax.models.layers import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LAYER_NORM_EPSILON

RECIPE = {
    "batch_size": 80,
    "epochs": 30,
    "sync_batch_norm": True,
    "depth_box_m": 0.4,  # metres: the published 400 flattens every depth to the middle cell
    "data": {
        "dataset": "interhand26m/interacting_mano",
        "mixture": (),
        "train_split": "train",
        "test_split": "test",
        "augmentation": {
            "scale": 0.25,
            "rotation_degrees": 30.0,
            "rotation_probability": 0.6,
            "colour": 0.2,
            "flip_probability": 0.5,
        },
    },
    "loss": {
        "rel_trans": 1.0,
        "mano_pose": 1.0,
        "mano_shape": 1.0,
        "joint_cam": 10.0,
        "mano_joint_cam": 10.0,
        "joint_img": 1.0,
        "mano_joint_img": 1.0,
        "joint_proj": 1.0,
    },
    "model": {
        "backbone": "resnet50",
        "backbone_width": 64,
        "freeze_backbone": False,
        "input_size": 256,
        "feature_dim": 512,
        "depth_bins": 8,
        "heads": 8,
        "mlp_ratio": 4,
        "dropout": 0.0,
        "desim_depth": 2,
        "deocc_depth": 2,
        "fusejoint_depth": 2,
        "use_desim": True,
        "use_deocc": True,
        "use_fusejoint": True,
        "rotation_residual": True,
        "embedding_std": 0.02,
        "precision": "float32",
    },
    "optimizer": {
        "name": "adam",
        "learning_rate": 1e-4,
        "reference_batch_size": 0,
        "weight_decay": 0.0,
        "gradient_clip": 0.0,
        "accumulation": 1,
        "ema_decay": 0.0,
        "schedule": "step",
        "decay_epochs": (15, 17),
        "decay_factor": 0.1,
    },
    "validation": {"every_epochs": 1, "stop_after": 5, "improvement": 0.001},
}


def test_the_papers_recipe():
    def assert_holds(config: ConfigDict, recipe: dict, path: str) -> None:
        for name, wanted in recipe.items():
            if isinstance(wanted, dict):
                assert_holds(config[name], wanted, f"{path}.{name}")
            else:
                assert config[name] == wanted, f"{path}.{name}"

    config = get_config()
    assert_holds(config, RECIPE, "config")
    assert {*config.loss} == {*RECIPE["loss"], "presence", "depth"}  # the last two are not its
    own = {"one_hand_probability"}
    assert {*config.data.augmentation} == {*RECIPE["data"]["augmentation"]} | own
    assert AugmentationRange(**config.data.augmentation) == AugmentationRange()


def test_constants_of_the_norms():
    constants = (BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LAYER_NORM_EPSILON)
    assert constants == (1e-5, 0.9, 1e-6)
