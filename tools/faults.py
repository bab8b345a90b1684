"""The faults of `tools.put_faults_in`: one changed line each, and the tests that should notice.

Each is a mistake that someone could make and that no exception would tell of.
"""

import dataclasses
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Fault:
    """A change of one file.

    Attributes:
      name: in words.
      area: of the project.
      file: relative to the repository.
      old: a text that occurs there exactly once.
      new: what it is replaced by.
      tests: files or tests, as pytest takes them, that should notice.
    """

    name: str
    area: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class _Change(NamedTuple):
    name: str
    old: str
    new: str
    tests: str


def _faults(area: str, file: str, *changes: _Change) -> list[Fault]:
    return [
        Fault(c.name, area, file, c.old, c.new, tuple(f"tests/{t}" for t in c.tests.split()))
        for c in changes
    ]


GOLDEN_TARGETS = "test_reference.py::test_golden_targets"
GOLDEN_LOSSES = "test_reference.py::test_golden_losses test_losses.py"
GOLDEN_METRICS = "test_reference.py::test_golden_metrics"
AGREEMENT = "test_learning.py::test_training_and_evaluation_see_the_same[pooled]"
POSE_GRADIENT = "test_learning.py::test_the_pose_does_not_move_the_heatmaps"
LEARNING = "test_learning.py::test_a_few_samples_are_learnt"
DEVICES = "test_devices.py::test_two_devices_step_as_one"
BOX = "test_run.py::test_a_box_gives_the_networks_hands_where_it_sees_them"
NOT_FINITE = "test_training_step.py::test_an_update_that_is_not_finite_is_skipped"
RESUMED = "test_run.py::test_a_stopped_run_goes_on_to_the_very_same_end"

FAULTS: list[Fault] = [
    *_faults(
        "targets",
        "er_jax/supervision/targets.py",
        _Change(
            "the rotation's sign",
            "angle = -jnp.deg2rad(rotation_degrees)",
            "angle = jnp.deg2rad(rotation_degrees)",
            GOLDEN_TARGETS,
        ),
        _Change(
            "rel_trans's sign",
            "wrist_cam[:, 1] - wrist_cam[:, 0]",
            "wrist_cam[:, 0] - wrist_cam[:, 1]",
            GOLDEN_TARGETS,
        ),
        _Change("a depth box twice as deep", "(depth_box_m / 2)", "depth_box_m", GOLDEN_TARGETS),
        _Change(
            "a mirror one pixel off",
            "width - 1 - pixels[..., 0]",
            "width - pixels[..., 0]",
            GOLDEN_TARGETS,
        ),
        _Change(
            "shapes not swapped by a flip",
            '_swap_if(flip, batch["mano_betas"])',
            'batch["mano_betas"]',
            GOLDEN_TARGETS,
        ),
        _Change(
            "fingers mirrored about the wrong axis",
            "jnp.array([1.0, -1.0, -1.0])",
            "jnp.array([-1.0, 1.0, -1.0])",
            GOLDEN_TARGETS,
        ),
        _Change(
            "a flipped root that is no rotation",
            "mirror = jnp.where(flip[:, None, None],",
            "mirror = jnp.where(flip[:, None, None] & False,",
            GOLDEN_TARGETS,
        ),
        _Change(
            "joints not visible count as seen",
            "joint_trunc = joint_valid & joint_seen &",
            "joint_trunc = joint_valid &",
            GOLDEN_TARGETS,
        ),
        _Change(
            "joints outside the crop count as seen",
            "jnp.all((points_cells >= 0) &",
            "jnp.any((points_cells >= 0) &",
            GOLDEN_TARGETS,
        ),
        _Change(
            "rel_trans valid with one wrist",
            "joint_valid[:, 0, WRIST] & joint_valid[:, 1, WRIST]",
            "joint_valid[:, 0, WRIST] | joint_valid[:, 1, WRIST]",
            GOLDEN_TARGETS,
        ),
        _Change(
            "the fit's mesh relative to the annotated wrist",
            "augmented(known.mesh_cam - mano_wrist_cam)",
            "augmented(known.mesh_cam - joint_wrist_cam)",
            GOLDEN_TARGETS,
        ),
    ),
    *_faults(
        "losses",
        "er_jax/supervision/losses.py",
        _Change(
            "joint_proj masked by what is seen",
            "targets.joint_img[..., :2], targets.joint_xy_valid[..., None]",
            "targets.joint_img[..., :2], in_image",
            GOLDEN_LOSSES,
        ),
        _Change(
            "the mean over what is annotated alone",
            "return jnp.mean(jnp.where(mask, weight * jnp.abs(predicted - target), 0.0))",
            "return jnp.mean(weight * jnp.abs(predicted - target), where=mask)",
            GOLDEN_LOSSES,
        ),
        _Change(
            "a squared error",
            "jnp.abs(predicted - target)",
            "jnp.square(predicted - target)",
            GOLDEN_LOSSES,
        ),
        _Change(
            "poses of fits that are meshes",
            "targets.mano_pose_valid[..., None]",
            "targets.mano_hand_valid[..., None]",
            GOLDEN_LOSSES,
        ),
        _Change("a weight of the loss", '"joint_cam": 10.0', '"joint_cam": 1.0', GOLDEN_LOSSES),
        _Change(
            "joint_cam against the fit's joints",
            "prediction.joints, targets.joint_cam, targets.joint_valid[..., None]",
            "prediction.joints, targets.mano_joint_cam, targets.joint_valid[..., None]",
            GOLDEN_LOSSES,
        ),
        _Change(
            "labels weigh the same however sure they are",
            "return _l1(predicted, target, mask, confidence)",
            "return _l1(predicted, target, mask, jnp.ones_like(confidence))",
            GOLDEN_LOSSES,
        ),
        _Change(
            "the relative translation as sure as the surer hand",
            "both_sure = jnp.min(",
            "both_sure = jnp.max(",
            GOLDEN_LOSSES,
        ),
        _Change(
            "joints marked in the image teach a depth",
            "[in_image, in_image, in_volume]",
            "[in_image, in_image, in_image]",
            GOLDEN_LOSSES,
        ),
    ),
    *_faults(
        "metrics",
        "er_jax/evaluation/metrics.py",
        _Change(
            "wrist_aligned against the mesh's joints",
            "_distance_mm(mesh.joints - wrist, joint_cam - joint_cam[..., :1])",
            "_distance_mm(mesh.joints - wrist, true_mesh.joints - true_wrist)",
            GOLDEN_METRICS,
        ),
        _Change(
            "scale_aligned without its scale",
            "scale = jnp.where(palm > 0, true_palm",
            "scale = jnp.where(palm > 0, palm",
            GOLDEN_METRICS,
        ),
        _Change(
            "scale_aligned of samples that lack a fit",
            "valid.mesh & (~interacting[:, None] | valid.mesh.all(-1, keepdims=True))",
            "valid.mesh",
            "test_metrics.py::test_a_missing_fit_changes_counts_and_no_other_sample",
        ),
        _Change(
            "the left hand moved the wrong way in RRVE",
            "+ rel_trans_error[..., None]",
            "- rel_trans_error[..., None]",
            GOLDEN_METRICS,
        ),
        _Change(
            "few joints are aligned too",
            "MIN_JOINTS_TO_ALIGN = 7",
            "MIN_JOINTS_TO_ALIGN = 3",
            GOLDEN_METRICS,
        ),
    ),
    *_faults(
        "metrics",
        "er_jax/evaluation/alignment.py",
        _Change(
            "the transposed rotation",
            "_quaternion_to_matrix(eigenvectors[..., -1])",
            "jnp.swapaxes(_quaternion_to_matrix(eigenvectors[..., -1]), -1, -2)",
            GOLDEN_METRICS,
        ),
        _Change(
            "thresholds not squared",
            "limits = jnp.array(thresholds) ** 2",
            "limits = jnp.array(thresholds)",
            GOLDEN_METRICS,
        ),
    ),
    *_faults(
        "metrics",
        "er_jax/evaluation/summary.py",
        _Change(
            "scale_aligned MPVPE by hands, not samples",
            "by_subset(*_mean_of_hands(scale))",
            "by_subset(scale.vertex_mm, scale.vertex_valid)",
            GOLDEN_METRICS,
        ),
        _Change(
            "MPJPE of all: of single hands alone",
            "both = np.concatenate([mean for mean, _ in lists.values()])",
            'both = lists["single"][0]',
            GOLDEN_METRICS,
        ),
        _Change(
            "PCK's area over twice the limit",
            "1 - values / PCK_LIMIT_MM)",
            "1 - values / PCK_LIMIT_MM / 2)",
            "test_metrics.py::test_pck_is_the_share_of_joints_within_and_its_area",
        ),
    ),
    *_faults(
        "metrics",
        "er_jax/mano/joints.py",
        _Change(
            "the regressor's middle tip in scale_aligned",
            '"Middle_4": 444}',
            '"Middle_4": 445}',
            GOLDEN_METRICS,
        ),
    ),
    *_faults(
        "augmentation",
        "data_pipeline/augmentation.py",
        _Change(
            "the crop's rotation", "[cos, sin, middle", "[cos, -sin, middle", "test_augmentation.py"
        ),
        _Change(
            "the box not mirrored with the image",
            "centre_x = image_width - 1 - centre_x",
            "centre_x = image_width / 2 - 0.5",
            "test_augmentation.py",
        ),
        _Change(
            "the scale upside down",
            "input_size / (width * augmentation.scale)",
            "input_size / width * augmentation.scale",
            "test_augmentation.py",
        ),
        _Change(
            "the image not mirrored",
            "mirror_first(img2bb, image.shape[1]) if augmentation.flip else img2bb",
            "img2bb",
            "test_augmentation.py",
        ),
        _Change(
            "no colour",
            "if augmentation.colour == (1.0, 1.0, 1.0):",
            "if augmentation.colour:",
            "test_augmentation.py",
        ),
        _Change(
            "rotations not clipped", "min(max(turn, -2.0), 2.0)", "turn", "test_augmentation.py"
        ),
        _Change(
            "every epoch varied alike",
            "counter=[0, 0, index, epoch]",
            "counter=[0, 0, index, 0]",
            "test_augmentation.py",
        ),
    ),
    *_faults(
        "augmentation",
        "er_jax/supervision/loaders.py",
        _Change(
            "the config's augmentation ignored",
            "augmentation=AugmentationRange(**config.data.augmentation)",
            "augmentation=AugmentationRange()",
            "test_loaders.py",
        ),
    ),
    *_faults(
        "network",
        "er_jax/models/er.py",
        _Change(
            "no stop_gradient before FuseJoint",
            "jax.lax.stop_gradient(joint_img)",
            "joint_img",
            POSE_GRADIENT,
        ),
        _Change(
            "projected after the wrist is subtracted",
            "project_weakly(mesh.joints, camera)",
            "project_weakly(mesh.joints - wrist, camera)",
            "test_models.py::test_outputs",
        ),
        _Change(
            "the prior in place of the features",
            "own + prior.reshape(own.shape) if used",
            "prior.reshape(own.shape) if used",
            "test_models.py::test_outputs",
        ),
        _Change(
            "vertices not wrist-relative",
            "vertices=mesh.vertices - wrist",
            "vertices=mesh.vertices",
            "test_models.py::test_outputs",
        ),
    ),
    *_faults(
        "network",
        "er_jax/models/deocc.py",
        _Change(
            "each hand looks at itself",
            "layer(tokens, tokens[:, ::-1]",
            "layer(tokens, tokens",
            "test_models_modules.py::test_deocc",
        ),
    ),
    *_faults(
        "network",
        "er_jax/models/per_hand.py",
        _Change(
            "the left hand through the right hand's weights",
            "left = self.left(",
            "left = self.right(",
            "test_models_modules.py::test_both_hands_apply_their_own_weights",
        ),
    ),
    *_faults(
        "network",
        "er_jax/models/heatmaps.py",
        _Change(
            "rows for columns",
            "((-3, -1), (-2, -1), (-3, -2))",
            "((-2, -1), (-3, -1), (-3, -2))",
            "test_models_modules.py::test_soft_argmax",
        ),
        _Change(
            "a softmax for each depth",
            "axis=(-4, -3, -1)",
            "axis=(-4, -3)",
            "test_models_modules.py::test_soft_argmax",
        ),
    ),
    *_faults(
        "network",
        "er_jax/models/heads.py",
        _Change(
            "the weak camera's shift left out",
            "scale * points[..., :2] + shift",
            "scale * (points[..., :2] + shift)",
            "test_models_modules.py::test_weak_projection",
        ),
        _Change(
            "rotations not as a residual",
            "if self.rotation_residual:",
            "if not self.rotation_residual:",
            "test_models_modules.py::test_pose",
        ),
    ),
    *_faults(
        "network",
        "er_jax/models/fusejoint.py",
        _Change(
            "sampled at (y, x)",
            "along_y[..., :, None] * along_x[..., None, :]",
            "along_x[..., :, None] * along_y[..., None, :]",
            "test_models_modules.py::test_bilinear_sampling",
        ),
    ),
    *_faults(
        "network",
        "er_jax/models/layers.py",
        _Change(
            "running statistics that hardly move",
            "BATCH_NORM_MOMENTUM = 0.9",
            "BATCH_NORM_MOMENTUM = 0.999",
            "test_recipe.py test_models_layers.py",
        ),
    ),
    *_faults(
        "training step",
        "er_jax/training/step.py",
        _Change(
            "images not scaled in training",
            'batch["image"].astype(jnp.float32) / 255',
            'batch["image"].astype(jnp.float32)',
            AGREEMENT,
        ),
        _Change("training on running statistics", "training=True,", "training=False,", AGREEMENT),
        _Change(
            "another depth box in training",
            "TargetSizes.of(settings.net, settings.depth_box_m)",
            "TargetSizes.of(settings.net, 2 * settings.depth_box_m)",
            AGREEMENT,
        ),
        _Change("uphill", "old - rate * update", "old + rate * update", LEARNING),
        _Change(
            "each device its own statistics",
            "batch_norm_axis=distributed.AXIS if settings.sync_batch_norm else None",
            "batch_norm_axis=None",
            DEVICES,
        ),
        _Change(
            "each device its own gradients",
            "gradients, metrics = distributed.mean_over_devices((gradients, metrics))",
            "metrics = distributed.mean_over_devices(metrics)",
            DEVICES,
        ),
        _Change(
            "an update that is not finite is made",
            'jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)',
            "norm == norm + 0 * norm",
            NOT_FINITE,
        ),
        _Change(
            "accumulated gradients are summed",
            "gradients = jax.tree.map(lambda x: x / parts, total)",
            "gradients = total",
            "test_training_step.py::test_parts_of_a_batch_give_the_gradient_of_the_whole",
        ),
    ),
    *_faults(
        "training step",
        "er_jax/training/state.py",
        _Change(
            "an average that follows at once",
            "state.ema, 1 - kept)",
            "state.ema, kept)",
            "test_training_step.py::test_the_moving_average_keeps_its_share",
        ),
    ),
    *_faults(
        "optimizer and schedule",
        "er_jax/training/optimizer.py",
        _Change(
            "no clipping",
            "if settings.gradient_clip:",
            "if settings.gradient_clip < 0:",
            "test_training_step.py::test_gradients_are_clipped_before_adam",
        ),
        _Change(
            "clipped after Adam",
            "parts.append(optax.scale_by_adam())",
            "parts.insert(0, optax.scale_by_adam())",
            "test_training_step.py::test_gradients_are_clipped_before_adam",
        ),
        _Change(
            "the rate decays by steps, not epochs",
            "epoch * steps_per_epoch: settings.decay_factor",
            "epoch: settings.decay_factor",
            "test_training_step.py::test_learning_rate_grows_with_the_batch",
        ),
        _Change(
            "the rate falls as the batch grows",
            "peak *= batch_size / settings.reference_batch_size",
            "peak *= settings.reference_batch_size / batch_size",
            "test_training_step.py::test_learning_rate_grows_with_the_batch",
        ),
        _Change(
            "no warm-up",
            "round(settings.warmup_epochs * steps_per_epoch)",
            "round(settings.warmup_epochs)",
            "test_training_step.py::test_warm_up_and_cosine",
        ),
    ),
    *_faults(
        "optimizer and schedule",
        "configs/ih26m.py",
        _Change(
            "another learning rate than the paper's",
            "config.optimizer.learning_rate = 1e-4",
            "config.optimizer.learning_rate = 1e-3",
            "test_recipe.py",
        ),
    ),
    *_faults(
        "validation",
        "er_jax/training/validation.py",
        _Change(
            "early stopping reversed",
            "min(scores[-patience:]) > min(scores[:-patience])",
            "min(scores[-patience:]) < min(scores[:-patience])",
            "test_validation.py",
        ),
        _Change(
            "any improvement is enough",
            "min(scores[:-patience]) - self._settings.improvement",
            "min(scores[:-patience])",
            "test_validation.py",
        ),
        _Change(
            "the weights validated, not their average",
            "state.evaluated(),",
            "state.weights,",
            "test_validation.py",
        ),
    ),
    *_faults(
        "validation",
        "er_jax/training/loop.py",
        _Change(
            "validated on the training split",
            "Split.of(config, config.data.validation_split)",
            "Split.of(config, config.data.train_split)",
            "test_run.py::test_validations_score_is_evaluations_number",
        ),
    ),
    *_faults(
        "resume",
        "er_jax/training/loop.py",
        _Change("the data begin again", "data.set_state(saved.data)", "data.get_state()", RESUMED),
        _Change(
            "validations forgotten",
            'validation.history = saved.run["validation"]',
            "pass",
            "test_run.py::test_a_finished_run_is_left_as_it_is",
        ),
    ),
    *_faults(
        "resume",
        "er_jax/training/checkpoints.py",
        _Change(
            "the best is the worst",
            "min(scores, key=scores.__getitem__)",
            "max(scores, key=scores.__getitem__)",
            "test_checkpoints.py test_run.py::test_the_best_checkpoint_is_kept_and_found",
        ),
        _Change(
            "the worst is kept",
            "reverse=True",
            "reverse=False",
            "test_checkpoints.py::test_the_newest_and_the_best_are_kept",
        ),
        _Change(
            "training goes on from the average",
            'trained = items.optimizer.get("trained", items.model)',
            "trained = items.model",
            "test_training_step.py::"
            "test_a_checkpoint_keeps_the_averages_for_evaluation_and_the_weights_for_training",
        ),
    ),
    *_faults(
        "resume",
        "er_jax/training/run_record.py",
        _Change(
            "a run goes on with another seed",
            '*("data_dir", "mano_dir", "init_from",',
            '*("seed", "data_dir", "mano_dir", "init_from",',
            "test_run_record.py",
        ),
    ),
    *_faults(
        "resume",
        "data_pipeline/loader.py",
        _Change(
            "a batch skipped",
            'self._next_sample = int(state["next_sample"])',
            'self._next_sample = int(state["next_sample"]) + self.batch_size',
            "test_loader.py",
        ),
    ),
    *_faults(
        "loader",
        "data_pipeline/loader.py",
        _Change(
            "one order for every seed",
            "_Shuffled(number, len(source), seed + number)",
            "_Shuffled(number, len(source), number)",
            "test_loaders.py",
        ),
        _Change(
            "all hosts read the same",
            "first, options = self._next_sample + index,",
            "first, options = self._next_sample,",
            "test_loader.py",
        ),
        _Change(
            "padding counts",
            "min(position, self.records - 1), position < self.records)",
            "min(position, self.records - 1))",
            "test_loader.py",
        ),
        _Change(
            "evaluation is augmented",
            "PrepareSample((source,), NO_AUGMENTATION,",
            "PrepareSample((source,), AugmentationRange(),",
            "test_loaders.py",
        ),
    ),
    *_faults(
        "loader",
        "data_pipeline/images.py",
        _Change(
            "blue for red",
            'simplejpeg.decode_jpeg(data, colorspace="RGB")',
            'simplejpeg.decode_jpeg(data, colorspace="BGR")',
            "test_prediction_crop.py",
        ),
    ),
    *_faults(
        "evaluation",
        "er_jax/evaluation/evaluate.py",
        _Change(
            "images not scaled in evaluation",
            "net(image.astype(jnp.float32) / 255, hands)",
            "net(image.astype(jnp.float32), hands)",
            AGREEMENT,
        ),
        _Change(
            "another depth box in evaluation",
            "TargetSizes.of(net_config, depth_box_m)",
            "TargetSizes.of(net_config, 2 * depth_box_m)",
            AGREEMENT,
        ),
        _Change(
            "evaluation by the batch's statistics",
            "network_structure(net_config, training=False)",
            "network_structure(net_config, training=True)",
            AGREEMENT,
        ),
    ),
    *_faults(
        "evaluation",
        "er_jax/evaluation/bootstrap.py",
        _Change(
            "differences the wrong way round",
            "_interval(score - scores[0], known)",
            "_interval(scores[0] - score, known)",
            "test_report.py",
        ),
    ),
    *_faults(
        "prediction's crop",
        "er_jax/inference/boxes.py",
        _Change(
            "a square that leaves the box's centre",
            "np.array([x + (width - side) / 2, y + (height - side) / 2, side, side])",
            "np.array([x, y, side, side])",
            "test_prediction_crop.py",
        ),
    ),
    *_faults(
        "prediction's crop",
        "er_jax/inference/pipeline.py",
        _Change(
            "the network's keypoints left in the crop",
            "crop.to_image(cells * BACKBONE_STRIDE)",
            "cells * BACKBONE_STRIDE",
            "test_prediction_crop.py",
        ),
        _Change(
            "the network's keypoints mirrored about the diagonal",
            "np.asarray(prediction.joint_img, np.float64)[..., :2]",
            "np.asarray(prediction.joint_img, np.float64)[..., 1::-1]",
            "test_prediction_crop.py",
        ),
    ),
    *_faults(
        "prediction's crop",
        "data_pipeline/augmentation.py",
        _Change(
            "the way back by the transposed matrix",
            "inverse[:, :2].T",
            "inverse[:, :2]",
            "test_prediction_crop.py",
        ),
    ),
    *_faults(
        "prediction's crop",
        "er_jax/inference/reconstructor.py",
        _Change(
            "bytes not scaled",
            "images.astype(jnp.float32) / 255 if images.dtype",
            "images.astype(jnp.float32) if images.dtype",
            "test_prediction_crop.py",
        ),
        _Change(
            "batch norms folded by the variance",
            "weight / np.sqrt(var + BATCH_NORM_EPSILON)",
            "weight / (var + BATCH_NORM_EPSILON)",
            "test_models_inference.py::test_every_batch_norm_is_folded",
        ),
    ),
    *_faults(
        "cameras and overlays",
        "er_jax/rendering/cameras.py",
        _Change(
            "the principal point's sign",
            "np.asarray(self.focal_px) + np.asarray(self.princpt_px)",
            "np.asarray(self.focal_px) - np.asarray(self.princpt_px)",
            "test_overlays.py",
        ),
    ),
    *_faults(
        "cameras and overlays",
        "er_jax/rendering/overlays.py",
        _Change(
            "the farther hand in front",
            "np.array([0.0, rel_depth_m * np.mean(scale_px)])",
            "np.array([rel_depth_m * np.mean(scale_px), 0.0])",
            "test_overlays.py",
        ),
        _Change(
            "seen from the camera's left",
            "angle = np.deg2rad(degrees)",
            "angle = -np.deg2rad(degrees)",
            "test_overlays.py",
        ),
        _Change(
            "hollow joints are the seen ones",
            "if seen is None or seen[joint] else 1",
            "if seen is None or not seen[joint] else 1",
            "test_overlays.py",
        ),
    ),
    *_faults(
        "photographs",
        "er_jax/photographs/engine.py",
        _Change(
            "keypoints outside the picture are trusted too",
            "np.where(outside, OUTSIDE_FACTOR * sigma, sigma)",
            "np.where(outside, sigma, sigma)",
            "test_photographs.py::test_keypoints_outside_the_picture_are_trusted_less",
        ),
        _Change(
            "the other hand's pose of the network",
            "pose=np.asarray(prediction.pose[side])",
            "pose=np.asarray(prediction.pose[1 - side])",
            BOX,
        ),
        _Change(
            "the other hand's keypoints of the network",
            "keypoints = found.keypoints_px[side]",
            "keypoints = found.keypoints_px[1 - side]",
            "test_photographs.py::test_each_hands_keypoints_and_joints_of_the_network_are_its_own",
        ),
    ),
    *_faults(
        "photographs",
        "er_jax/photographs/photograph.py",
        _Change(
            "a picture not turned upright",
            "image = ImageOps.exif_transpose(file)",
            "image = file",
            "test_photographs.py::test_a_picture_is_turned_upright_as_its_camera_was_held",
        ),
        _Change(
            "a 35 mm focal length by the width",
            "DIAGONAL_35MM = math.hypot(36.0, 24.0)",
            "DIAGONAL_35MM = 36.0",
            "test_photographs.py::test_the_focal_length_is_as_given_then_by_exif_then_assumed",
        ),
    ),
    *_faults(
        "photographs",
        "er_jax/photographs/result.py",
        _Change(
            "glTF in a mirror",
            "np.diag([1.0, -1.0, -1.0, 1.0])",
            "np.diag([1.0, -1.0, 1.0, 1.0])",
            "test_photographs.py::test_the_files_say_the_same",
        ),
        _Change(
            "the other hand's faces in files",
            "hand.vertices, self.faces[side], vertex",
            "hand.vertices, self.faces[1 - side], vertex",
            "test_photographs.py::test_the_files_say_the_same",
        ),
    ),
    *_faults(
        "fit",
        "er_jax/fitting/posed_joints.py",
        _Change(
            "shifts of bones without their weights",
            "hand.weights[:, None] * shifts[bones]",
            "shifts[bones]",
            "test_fitting.py::test_joints_without_a_mesh_are_the_layers",
        ),
        _Change(
            "a left hand spreads its fingers like a right one",
            "sign * back, sign * along",
            "back, sign * along",
            "test_fitting.py::test_flexion_goes_to_the_palm_and_the_second_angle_to_the_thumb",
        ),
        _Change(
            "a flat hand at rest",
            "mean = np.asarray(hands.mean_pose).reshape(2, 15, 3)",
            "mean = np.zeros((2, 15, 3))",
            "test_fitting.py::test_a_hand_at_rest_is_in_its_mean_pose",
        ),
    ),
    *_faults(
        "fit",
        "er_jax/fitting/fit.py",
        _Change(
            "all keypoints trusted alike",
            "* evidence.keypoint_precision[..., None]",
            "* (evidence.keypoint_precision[..., None] > 0)",
            "test_fitting.py::test_of_two_sources_that_disagree_the_surer_is_followed",
        ),
        _Change(
            "upper limits of angles for lower ones",
            "jnp.maximum(angles - UPPER, 0) + jnp.minimum(angles - LOWER, 0)",
            "jnp.maximum(angles - LOWER, 0) + jnp.minimum(angles - UPPER, 0)",
            "test_fitting.py::test_hands_are_recovered_from_what_was_seen_of_them",
        ),
        _Change(
            "the middle joint follows the last",
            "flexion[..., 2] - COUPLING * flexion[..., 1]",
            "flexion[..., 1] - COUPLING * flexion[..., 2]",
            "test_fitting.py::test_a_last_joint_that_was_not_seen_bends_with_the_one_before_it",
        ),
        _Change(
            "outliers pull as before",
            "residuals * lax.stop_gradient(root**-0.5)",
            "residuals",
            "test_fitting.py::test_one_wrong_keypoint_moves_little",
        ),
        _Change(
            "hands may overlap",
            "_overlaps(hands, joints) / OVERLAP_SIGMA_M",
            "0 * _overlaps(hands, joints)",
            "test_fitting.py::test_hands_that_are_seen_in_one_place_do_not_run_into_each_other",
        ),
        _Change(
            "rel_trans from left to right in the fit",
            "joints[1, 0] - joints[0, 0]",
            "joints[0, 0] - joints[1, 0]",
            "test_fitting.py::test_two_hands_share_their_shape_and_keep_their_places",
        ),
    ),
    *_faults(
        "fit",
        "er_jax/fitting/levenberg_marquardt.py",
        _Change(
            "worse steps are taken too",
            "better = there[0].cost < best.cost",
            "better = jnp.isfinite(there[0].cost)",
            "test_fitting.py::test_the_solver_gets_through_a_curved_valley_and_stops",
        ),
    ),
    *_faults(
        "detection",
        "er_jax/detection/people.py",
        _Change(
            "the surer of two hands changes its side",
            "key=lambda hand: -hand.side_probability",
            "key=lambda hand: hand.side_probability",
            "test_people.py",
        ),
    ),
    *_faults(
        "detection",
        "er_jax/detection/regions.py",
        _Change(
            "regions turned the other way",
            "np.array([[cos, -sin], [sin, cos]])",
            "np.array([[cos, sin], [-sin, cos]])",
            "test_detection.py",
        ),
        _Change(
            "halves of a picture half a pixel off",
            "((scale - 1) / 2)",
            "(scale - 1)",
            "test_detection.py",
        ),
    ),
    *_faults(
        "place and presence",
        "er_jax/models/place.py",
        _Change(
            "the left hand at the right one's depth",
            "along = apart * jnp.array([0.0, 0.0, 1.0])",
            "along = apart * 0",
            "test_place.py",
        ),
        _Change(
            "absent hands have a say",
            "weights = jnp.broadcast_to(has_say[..., None], joint_img.shape[:-1])",
            "weights = jnp.ones(joint_img.shape[:-1])",
            "test_place.py",
        ),
        _Change(
            "a hand as flat as its picture",
            "flat = points[..., :2] - rays * points[..., 2:]",
            "flat = points[..., :2]",
            "test_place.py",
        ),
    ),
    *_faults(
        "place and presence",
        "er_jax/supervision/targets.py",
        _Change(
            "rays of a mirrored picture",
            "before = jnp.where(flip[:, None], last, 0.0)",
            "before = 0 * last",
            "test_place.py test_reference.py::test_golden_targets",
        ),
        _Change(
            "presence without the mirror",
            "hand_present=_swap_if(flip, ",
            "hand_present=_swap_if(flip & False, ",
            "test_reference.py::test_golden_targets",
        ),
    ),
    *_faults(
        "place and presence",
        "er_jax/supervision/losses.py",
        _Change(
            "hand types that are not sure are learnt",
            "jnp.where(targets.hand_present_valid[:, None], entropy, 0.0)",
            "entropy",
            "test_reference.py::test_golden_losses",
        ),
        _Change(
            "the depth bends the meshes",
            "jax.lax.stop_gradient((prediction.joints, prediction.rel_trans))",
            "prediction.joints, prediction.rel_trans",
            "test_losses.py::test_the_depth_moves_the_heatmaps_alone",
        ),
        _Change(
            "depth that is far off is learnt from",
            "jnp.minimum(jnp.abs(found - true), FAR_OFF)",
            "jnp.abs(found - true)",
            "test_reference.py::test_losses",
        ),
    ),
    *_faults(
        "place and presence",
        "er_jax/evaluation/calibration.py",
        _Change(
            "joints that are not annotated are calibrated on",
            "squares = np.where(valid, error_mm, 0.0) ** 2",
            "squares = error_mm**2",
            "test_calibration.py",
        ),
        _Change(
            "depths are scaled the other way",
            "return float(1 / np.median(ratio))",
            "return float(np.median(ratio))",
            "test_calibration.py",
        ),
        _Change(
            "the least sure joints are kept",
            'order = np.argsort(sigma, kind="stable")',
            'order = np.argsort(-sigma, kind="stable")',
            "test_calibration.py",
        ),
    ),
    *_faults(
        "place and presence",
        "er_jax/models/er.py",
        _Change(
            "presence read off the other hand",
            "None if self.presence is None else self.presence(pooled)",
            "None if self.presence is None else self.presence(pooled[:, ::-1])",
            "test_models.py::test_presence_is_read_off_each_hands_own_features",
        ),
    ),
    *_faults(
        "place and presence",
        "er_jax/photographs/engine.py",
        _Change(
            "a hand is shown by the other one's presence",
            "self.presence[side] > PRESENT",
            "self.presence[1 - side] > PRESENT",
            "test_photographs.py",
        ),
        _Change(
            "a network's hand is as sure as the fit that kept it",
            'if source == "network" and found.network is not None:',
            "if False:",
            "test_photographs.py",
        ),
    ),
    *_faults(
        "everyone's data",
        "er_jax/supervision/targets.py",
        _Change(
            "the projection goes before the mark in the image",
            'jnp.where(marked[..., None], batch["joint_px"], projected(joint_cam))',
            "jnp.where(marked[..., None], projected(joint_cam), projected(joint_cam))",
            "test_targets.py test_own_data.py",
        ),
        _Change(
            "a camera that is not known is believed",
            'camera_valid = batch["camera_valid"][:, None, None]',
            'camera_valid = batch["camera_valid"][:, None, None] | True',
            "test_targets.py",
        ),
        _Change(
            "confidences of a mirrored image are the other hand's",
            'confidence=_swap_if(flip, batch["label_confidence"])',
            'confidence=batch["label_confidence"]',
            "test_targets.py",
        ),
        _Change(
            "a mesh's joints go before annotated ones",
            "alone = given & ~known.joint_valid.any(axis=-1)",
            "alone = given",
            "test_targets.py",
        ),
    ),
    *_faults(
        "everyone's data",
        "data_pipeline/build/labels.py",
        _Change(
            "joints without a wrist count in 3D",
            "valid &= valid[WRIST]",
            "valid &= True",
            "test_own_data.py",
        ),
        _Change(
            "what others may be there is taken for known",
            'columns["hand_type_valid"][row] = image.hands_there is not None',
            'columns["hand_type_valid"][row] = True',
            "test_own_data.py",
        ),
        _Change(
            "camera translation in metres",
            'columns["camera_translation_mm"][row] = 1000 * translation',
            'columns["camera_translation_mm"][row] = translation',
            "test_own_data.py",
        ),
        _Change(
            "a given box is not made square",
            "found[row] = x + (width - side) / 2, y + (height - side) / 2, side, side",
            "found[row] = x, y, width, height",
            "test_own_data.py",
        ),
        _Change(
            "millimetres pass for metres",
            "> FARTHEST_M:",
            "> 1e9:",
            "test_own_data.py",
        ),
    ),
    *_faults(
        "everyone's data",
        "data_pipeline/records.py",
        _Change(
            "absent extrinsics turn the camera",
            '"camera_rotation": Field((3, 3), np.float32, np.eye(3)),',
            '"camera_rotation": Field((3, 3), np.float32),',
            "test_own_data.py test_hic.py",
        ),
    ),
    *_faults(
        "everyone's data",
        "data_pipeline/readers/records.py",
        _Change(
            "joints stay in the order they came in",
            "return joints[order]",
            "return joints",
            "test_own_data.py",
        ),
        _Change(
            "the mean pose twice",
            "pose[3:] -= np.asarray",
            "pose[3:] += np.asarray",
            "test_own_data.py",
        ),
        _Change(
            "every line without a split is of val",
            '"val" if val_every and unnamed % val_every == 0 else "train"',
            '"val" if val_every else "train"',
            "test_own_data.py",
        ),
        _Change(
            "images turned by EXIF are taken as they are stored",
            "if orientation not in (0, 1):",
            "if orientation not in range(9):",
            "test_own_data.py",
        ),
    ),
    *_faults(
        "everyone's data",
        "data_pipeline/readers/photographs.py",
        _Change(
            "hands that no fit explains are labels",
            "if not hand.explained:",
            "if False:",
            "test_photograph_labels.py",
        ),
        _Change(
            "a hand not found is taken for one not there",
            '"interacting" if len(hands) == len(HANDS) else "unknown"',
            '"interacting" if len(hands) == len(HANDS) else next(iter(hands))',
            "test_photograph_labels.py",
        ),
        _Change(
            "confidence regardless of what is off",
            "(hand.score or 0.0) * (1 - hand.reprojection / EXPLAINED)",
            "(hand.score or 0.0)",
            "test_photograph_labels.py",
        ),
        _Change(
            "the focal length of a larger photograph",
            "focal = focal_px and (scale * focal_px[0], scale * focal_px[1])",
            "focal = focal_px",
            "test_photograph_labels.py",
        ),
    ),
    *_faults(
        "everyone's data",
        "data_pipeline/readers/interhand26m/reader.py",
        _Change(
            "a squashed camera's annotations are kept",
            'found if squashed == "drop" else ()',
            "()",
            "test_interhand26m_traps.py",
        ),
    ),
    *_faults(
        "everyone's data",
        "er_jax/evaluation/freihand.py",
        _Change(
            "FreiHAND's AUC to 40 mm",
            "np.linspace(0, 0.05, 100)",
            "np.linspace(0, 0.04, 100)",
            "test_freihand.py",
        ),
    ),
    *_faults(
        "everyone's data",
        "er_jax/mano/conventions.py",
        _Change(
            "the mean pose in smplx's hand by the wrong flag",
            "np.asarray(mean_pose, np.float64) * flat_hand_mean\n    return {",
            "np.asarray(mean_pose, np.float64) * (not flat_hand_mean)\n    return {",
            "test_mano_conventions.py",
        ),
    ),
    *_faults(
        "video",
        "er_jax/video/tracking.py",
        _Change(
            "a doubtful frame flips a side",
            "MOST_EVIDENCE = 4.0",
            "MOST_EVIDENCE = 0.0",
            "test_video.py",
        ),
        _Change(
            "a hand that comes back is a stranger's",
            "_STRANGER = 4.0",
            "_STRANGER = 0.0",
            "test_video.py",
        ),
        _Change(
            "two hands may be followed to one place",
            "if all(_apart(other, answer) > SAME_HAND for _, other in kept):",
            "if True:",
            "test_video.py",
        ),
        _Change(
            "a lost hand is not looked for",
            "_SOUGHT_FRAMES = 5",
            "_SOUGHT_FRAMES = 0",
            "test_video.py",
        ),
        _Change(
            "a tracker that goes on forgets how hands moved",
            'hand = _Hand(person, side, last, seen, state["velocity"][i], evidence)',
            'hand = _Hand(person, side, last, seen + 1, state["velocity"][i], evidence)',
            "test_video.py",
        ),
    ),
    *_faults(
        "video",
        "er_jax/video/observations.py",
        _Change(
            "hands may be exchanged wherever",
            "price = CHANGE if may_change[i] else np.inf",
            "price = CHANGE",
            "test_video.py",
        ),
        _Change(
            "hands once exchanged stay so",
            "price = CHANGE if may_change[i] else np.inf",
            "price = np.inf",
            "test_video.py",
        ),
    ),
    *_faults(
        "video",
        "er_jax/video/following.py",
        _Change(
            "an interrupted clip begins again",
            'done = sum(len(chunk["times_s"]) for chunk in known)',
            'done = 0 * sum(len(chunk["times_s"]) for chunk in known)',
            "test_video.py",
        ),
    ),
    *_faults(
        "video",
        "er_jax/video/smoothing.py",
        _Change(
            "long gaps are filled",
            "_with_short_gaps(known, times, most_filled_s + 1.5 * step)",
            "_with_short_gaps(known, times, np.inf)",
            "test_video_smoothing.py",
        ),
    ),
    *_faults(
        "video",
        "er_jax/video/gltf.py",
        _Change(
            "bones bound the other way",
            "inverse[:, :3, 3] = -rig.joints",
            "inverse[:, :3, 3] = rig.joints",
            "test_video_outputs.py",
        ),
    ),
    *_faults(
        "video",
        "er_jax/video/frames.py",
        _Change(
            "frames of a folder by the letters of their names",
            'key=lambda path: [_number(t) for t in re.split(r"(\\d+)", path.name)]',
            "key=lambda path: path.name",
            "test_video.py",
        ),
    ),
    *_faults(
        "video",
        "er_jax/video/live.py",
        _Change(
            "frames that nobody had time for are waited for",
            "self.dropped += number - last - 1",
            "self.dropped += 0",
            "test_video.py",
        ),
    ),
    *_faults(
        "video",
        "er_jax/fitting/fitter.py",
        _Change(
            "a given start is turned the other way",
            "return hand.start[0], np.asarray(anatomical_angles",
            "return hand.start[0].T, np.asarray(anatomical_angles",
            "test_video.py test_fitting.py",
        ),
    ),
    *_faults(
        "serving",
        "er_jax/web/worker.py",
        _Change(
            "pictures of other cameras are done with the first one's",
            "if job.photograph is not None and job.choice == first.choice",
            "if job.photograph is not None",
            "test_worker.py",
        ),
        _Change(
            "one picture at fault spoils its whole batch",
            "                self._do([job])",
            "                job.future.set_exception(error)",
            "test_worker.py",
        ),
        _Change(
            "the end forgets what waits",
            "            if not self._jobs:",
            "            if self._closed or not self._jobs:",
            "test_worker.py",
        ),
        _Change(
            "large pictures wait without bound",
            "pixels + job.pixels > self._most_pixels",
            "pixels > self._most_pixels",
            "test_worker.py",
        ),
    ),
    *_faults(
        "serving",
        "er_jax/web/server.py",
        _Change(
            "a body without an announced length is read to its end",
            "if len(data) > limits.body_bytes:",
            "if False:",
            "test_server.py",
        ),
        _Change(
            "who has left is waited for",
            "    future.cancel()",
            "    pass",
            "test_server.py",
        ),
        _Change(
            "left and right faces exchanged",
            "right, left = result.faces.tolist()",
            "left, right = result.faces.tolist()",
            "test_server.py",
        ),
        _Change(
            "any site may call it",
            "app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))",
            "pass",
            "test_server.py",
        ),
    ),
    *_faults(
        "serving",
        "er_jax/web/protocol.py",
        _Change(
            "half a request is waited for for ever",
            "if self.cycle is None and not self.transport.is_closing():",
            "if False:",
            "test_server.py",
        ),
    ),
    *_faults(
        "bulk",
        "er_jax/bulk/results.py",
        _Change(
            "pictures without hands shift the keys of others",
            "for one, result in both for _ in result.hands]",
            "for one, _ in both for _ in range(1)][: len(table)]",
            "test_bulk.py",
        ),
        _Change(
            "frames of a video's later piece are counted from 0",
            'table["frame"].to_numpy() + clip.first',
            'table["frame"].to_numpy() + 0',
            "test_bulk.py",
        ),
        _Change(
            "failures of an earlier try stay",
            "        path.unlink(missing_ok=True)  # of a run that was ended before it was done",
            "        pass",
            "test_bulk.py",
        ),
    ),
    *_faults(
        "bulk",
        "er_jax/bulk/run.py",
        _Change(
            "units without pictures are never done",
            "yield number, iter([[]])  # it has",
            "pass  # it has",
            "test_bulk.py",
        ),
        _Change(
            "other weights go on with the same folder",
            'told_only = ("code_sha256", "code_commit")',
            'told_only = ("code_sha256", "code_commit", "weights_sha256")',
            "test_bulk.py",
        ),
        _Change(
            "shares of the units overlap",
            "own = range(number, plan.units, count)",
            "own = range(0, plan.units, 1)",
            "test_bulk.py",
        ),
    ),
    *_faults(
        "bulk",
        "er_jax/bulk/pool.py",
        _Change(
            "a broken process ends the whole run",
            "            return future.result()",
            "            return [] if future.exception() else future.result()",
            "test_bulk.py",
        ),
    ),
    *_faults(
        "bulk",
        "er_jax/bulk/tables.py",
        _Change(
            "rows of a later row group are an earlier one's",
            "skipped = first - start",
            "skipped = 0",
            "test_bulk.py",
        ),
    ),
    *_faults(
        "bulk",
        "er_jax/bulk/sources.py",
        _Change(
            "a tar that is cut short between members is whole",
            "return not any(file.read())",
            "return True",
            "test_bulk.py",
        ),
    ),
    *_faults(
        "bulk",
        "er_jax/bulk/plan.py",
        _Change(
            "what is named twice is done twice",
            "ordered[1:][ordered[1:] == ordered[:-1]]",
            "ordered[:0]",
            "test_bulk.py",
        ),
    ),
    *_faults(
        "video",
        "er_jax/video/frames.py",
        _Change(
            "a decoder's complaints wait for Python, which waits for it",
            "av.logging.restore_default_callback()",
            "av.logging.set_level(av.logging.PANIC)",
            "test_video.py",
        ),
        _Change(
            "a part of a clip has the times of its beginning",
            "yield Frame(index - self.first, time - first, upright)",
            "yield Frame(index - self.first, time - first - self.first / self.frame_rate, upright)",
            "test_video.py",
        ),
    ),
    *_faults(
        "viewer",
        "er_jax/viewer/result.py",
        _Change(
            "joints that are no numbers are let through",
            "if not off_m <= LARGEST_DIFFERENCE_M:",
            "if off_m > LARGEST_DIFFERENCE_M:",
            "test_viewer.py",
        ),
    ),
    *_faults(
        "serving",
        "er_jax/web/page_guard.py",
        _Change(
            "a call names any file of the machine",
            "if path not in self._files), None",
            "if not path), None",
            "test_page.py",
        ),
        _Change(
            "an upload of any size is taken",
            "elif int(length) > most:",
            "elif False:",
            "test_page.py",
        ),
    ),
    *_faults(
        "serving",
        "er_jax/web/page.py",
        _Change(
            "Gradio itself lets calls name any file",
            "page.blocks.has_launched = page.blocks.is_running = True",
            "page.blocks.is_running = True",
            "test_page.py",
        ),
    ),
    *_faults(
        "serving",
        "er_jax/web/page_files.py",
        _Change(
            "old files stay",
            "if path not in self._stays and path.lstat().st_ctime < oldest:",
            "if False:",
            "test_page.py",
        ),
    ),
    *_faults(
        "serving",
        "er_jax/web/page_work.py",
        _Change(
            "a clip that nobody waits for is done to its end",
            "progress.stopped.set()",
            "pass",
            "test_page.py",
        ),
    ),
    *_faults(
        "viewer",
        "er_jax/viewer/geometry.py",
        _Change(
            "the picture's principal point is its middle",
            "((pixels - 1) / 2 - principal) / focal",
            "((pixels - 1) / 2 - (pixels - 1) / 2) / focal",
            "test_viewer.py",
        ),
    ),
]
