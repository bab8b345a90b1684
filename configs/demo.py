"""The demo: the whole job on the stand-in hand and dataset, on two CPU cores.

make demo
"""

from ml_collections import ConfigDict

from er_jax.configs.ih26m import get_config as ih26m


def get_config() -> ConfigDict:
    """The paper's network, narrowed and shallower, at half the image size."""
    config = ih26m()
    config.batch_size = 32
    config.epochs = 6
    config.log_every_steps = 20
    config.data.dataset = "interhand26m/all"
    config.data.workers = 0
    config.data.augmentation.rotation_degrees = 15.0
    config.model.backbone = "resnet18"
    config.model.backbone_width = 24
    config.model.backbone_init = "he"
    config.model.input_size = 128
    config.model.feature_dim = 128
    config.model.desim_depth = config.model.deocc_depth = config.model.fusejoint_depth = 1
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.gradient_clip = 1.0
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 0.5
    config.validation.every_epochs = 3
    config.checkpoint.every_steps = 200
    return config
