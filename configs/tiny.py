"""The smallest network that has every module: for tests, on any dataset of a few images.

python -m er_jax.main --config configs/tiny.py --workdir RUN --config.data_dir=DATASETS
"""

from ml_collections import ConfigDict

from er_jax.configs.demo import get_config as demo


def get_config() -> ConfigDict:
    """Seconds an epoch on one CPU core."""
    config = demo()
    config.batch_size = 4
    config.epochs = 2
    config.log_every_steps = 1
    config.data.validation_split = "test"
    config.model.backbone_width = 8
    config.model.input_size = 64
    config.model.feature_dim = 16
    config.model.heads = 2
    config.validation.every_epochs = 1
    return config
