"""The paper's recipe on InterHand2.6M.

    python -m er_jax.main --config configs/ih26m.py --workdir RUN \
        --config.data_dir=DATASETS --config.mano_dir=MANO

`DATASETS` holds what `python -m data_pipeline.build interhand26m` wrote, `MANO` the official
`MANO_RIGHT.pkl` and `MANO_LEFT.pkl`. The paper reports 6.65 mm MPJPE (protocol `scale_aligned`,
366,358 training and 261,494 test images) for this recipe; this project has not been trained on the
real dataset yet. The batch is that of one of the reference's GPUs: with N of them, set
`--config.batch_size` to 80·N.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Every field that any run can set; the other configs change some of them."""
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
    config.skipped_updates_limit = 20  # not finite: more of them in a run end it

    config.data = ConfigDict()
    config.data.dataset = "interhand26m/interacting_mano"
    # Trained on instead of `dataset`, where given: datasets and how many samples each gives in
    # proportion, as in (("interhand26m/all", 9), ("hic:test", 1)). An epoch is as long as all.
    config.data.mixture = ()
    config.data.train_split = "train"  # but of "name:split" that split
    config.data.validation_split = "val"
    config.data.test_split = "test"
    config.data.workers = 8  # processes that decode and crop; 0: a thread of this process
    config.data.augmentation = ConfigDict()
    config.data.augmentation.scale = 0.25  # standard deviation, and largest deviation from 1
    config.data.augmentation.rotation_degrees = 30.0  # standard deviation; at most twice that
    config.data.augmentation.rotation_probability = 0.6
    config.data.augmentation.colour = 0.2  # largest deviation of a channel's factor from 1
    config.data.augmentation.flip_probability = 0.5

    config.depth_box_m = 0.4  # depth around the wrist that the heatmaps span
    config.model = ConfigDict()
    config.model.backbone = "resnet50"
    config.model.backbone_width = 64  # channels of a ResNet's stem
    config.model.backbone_weights = placeholder(str)  # torchvision's or timm's file to start from
    config.model.backbone_init = "normal"  # as the other layers; "he" learns faster from scratch
    config.model.freeze_backbone = False
    config.model.frozen = ()  # patterns of other parts that are not trained: ("desim", "deocc")
    config.model.remat_backbone = False  # less memory: its blocks are computed twice
    config.model.precision = "float32"  # or "bfloat16": of the products; all else stays float32
    config.model.input_size = 256
    config.model.feature_dim = 512
    config.model.depth_bins = 8
    config.model.heads = 8
    config.model.mlp_ratio = 4
    config.model.dropout = 0.0  # after attention and in the MLPs
    config.model.desim_depth = 2
    config.model.deocc_depth = 2
    config.model.fusejoint_depth = 2
    config.model.use_desim = True
    config.model.use_deocc = True
    config.model.use_fusejoint = True
    config.model.position_embedding = True
    config.model.hand_embedding = True
    config.model.deocc_shared_weights = True
    config.model.joint_coordinate_embedding = True
    config.model.joint_embedding = True
    config.model.rotation_residual = True
    config.model.embedding_std = 0.02

    config.loss = ConfigDict()
    config.loss.rel_trans = 1.0
    config.loss.mano_pose = 1.0
    config.loss.mano_shape = 1.0
    config.loss.joint_cam = 10.0
    config.loss.mano_joint_cam = 10.0
    config.loss.joint_img = 1.0
    config.loss.mano_joint_img = 1.0
    config.loss.joint_proj = 1.0

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
    config.validation.pictures = 8  # the same samples in TensorBoard at each validation; 0: none

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 1000
    config.checkpoint.keep = 2  # newest; the best is kept besides
    return config.lock()
