"""The paper's recipe on InterHand2.6M.

    python -m er_jax.main --config configs/ih26m.py --workdir RUN \
        --config.data_dir=DATASETS --config.mano_dir=MANO

`DATASETS` holds what `python -m data_pipeline.build interhand26m` wrote, `MANO` the official
`MANO_RIGHT.pkl` and `MANO_LEFT.pkl`. The paper reports 6.65 mm MPJPE (protocol `scale_aligned`,
366,358 training and 261,494 test images) for this recipe; this project has not been trained on the
real dataset yet. The batch is that of one of the reference's GPUs: with N of them, set
`--config.batch_size` to 80·N.
"""

import dataclasses

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from data_pipeline.augmentation import AugmentationRange
from er_jax.models.config import ERConfig
from er_jax.supervision.losses import LOSS_WEIGHTS


def get_config() -> ConfigDict:
    """Every field that any run can set; the other configs change some of them.

    The network's sizes and switches are the defaults of `er_jax.models.config.ERConfig`, which
    explains them; augmentation and loss weights those of `AugmentationRange` and `LOSS_WEIGHTS`.
    """
    config = ConfigDict()
    config.seed = 0
    config.data_dir = placeholder(str)  # where the TFDS datasets were built
    config.mano_dir = placeholder(str)  # the official MANO files; None: the stand-in hand
    config.init_from = placeholder(str)  # a run's folder, or one of its checkpoints, to start from
    config.init_parts = ("",)  # patterns of the weights' names that are taken from it; "": all
    config.batch_size = 80  # over all devices of all hosts
    config.sync_batch_norm = True  # batch statistics of all devices together
    config.epochs = 30
    config.log_every_steps = 50
    config.stuck_after_s = 1800  # no step at one of several processes ends a run; 0: never
    config.nonfinite_updates_limit = 20  # not finite: more of them in a run end it

    config.data = ConfigDict()
    config.data.dataset = "interhand26m/interacting_mano"
    # Trained on instead of `dataset`, where given: datasets and how many samples each gives in
    # proportion, as in (("interhand26m/all", 9), ("hic:test", 1)). An epoch is as long as all.
    config.data.mixture = ()
    config.data.train_split = "train"  # but of "name:split" that split
    config.data.validation_split = "val"
    config.data.test_split = "test"
    # Processes that decode and crop for each process of the run, best one a GPU; 0: threads of it.
    config.data.workers = 8
    # Rotations as far as 60° (rotation_degrees 30, probability 0.6) are the reference's, and those
    # of InterWild, HaMeR and WiLoR; 90° (45, 0.6) those of InterNet, Keypoint Transformer and
    # A2J-Transformer; IntagHand draws from ±90° evenly. None of them turns a hand upside down:
    # rotation_degrees=90.0 with rotation_probability=1.0 draws every angle.
    config.data.augmentation = ConfigDict(dataclasses.asdict(AugmentationRange()))

    config.depth_box_m = 0.4  # depth around the wrist that the heatmaps span
    config.model = ConfigDict(dataclasses.asdict(ERConfig()))
    config.model.backbone_weights = placeholder(str)  # torchvision's or timm's file to start from
    config.model.use_presence = True  # not the paper's: says which hands are there
    del config.model.batch_norm_axis  # follows from sync_batch_norm
    config.loss = ConfigDict(LOSS_WEIGHTS)

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.reference_batch_size = 0  # learning_rate is for this batch, and grows with it
    config.optimizer.weight_decay = 0.0  # of adamw
    config.optimizer.gradient_clip = 0.0  # largest global norm; 0: none
    config.optimizer.accumulation = 1  # parts of a device's batch, one after the other
    config.optimizer.ema_decay = 0.0  # of a moving average of the weights, which is evaluated
    config.optimizer.schedule = "step"
    config.optimizer.decay_epochs = (15, 17)  # of the step schedule
    config.optimizer.decay_factor = 0.1
    config.optimizer.warmup_epochs = 0.0  # of the cosine schedule

    config.validation = ConfigDict()
    # Picks the best checkpoint. "auto": scale_aligned/MPJPE/all where the split has MANO fits,
    # wrist_aligned/MPJPE/all where it has joints alone.
    config.validation.metric = "auto"
    config.validation.every_epochs = 1
    config.validation.stop_after = 5  # epochs without an improvement; 0: never
    config.validation.improvement = 0.001
    config.validation.images = 8  # the same samples in TensorBoard at each validation; 0: none

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 1000
    config.checkpoint.keep = 2  # newest; the best is kept besides
    return config.lock()
