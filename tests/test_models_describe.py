"""The table of modules: parameters, FLOPs and activations against counts by hand."""

import os
import subprocess
import sys

import jax.numpy as jnp
import pytest
from flax import nnx

from er_jax.inference.describe import kept_for_backward, measure, parts_of
from er_jax.mano import load_hands
from er_jax.models import ERConfig, ERNet

COMMAND = (sys.executable, "-m", "er_jax.main", "--config=configs/tiny.py", "--mode=describe")
OPTIONS = ("--config.model.use_deocc=False", "--config.batch_size=2")


@pytest.fixture(scope="module")
def rows():
    """The table that the command line prints: cells by the name of the row."""
    output = subprocess.run(
        [*COMMAND, *OPTIONS],
        env=os.environ | {"COLUMNS": "200"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    cells = [line.strip("│").split("│") for line in output.splitlines() if "│" in line]
    return {name.strip(): [value.strip() for value in values] for name, *values in cells}


def test_rows_follow_the_figure_and_leave_out_what_is_switched_off(rows):
    boxes = [name.split(" →")[0] for name in rows]
    assert boxes[:4] == ["Backbone", "Hand streams", "Joint heatmaps", "DeSim"]
    assert boxes[-1] == "image to meshes"
    assert "DeOcc" not in boxes


def test_numbers(rows):
    output, parameters, flops, _ = rows["Pose"]
    assert output == "2 × 2 × 16 × 3 × 3"
    weights = 2 * 21 * (16 + 3) * 96  # two hands
    assert float(parameters) == round((weights + 2 * 96) / 1e6, 2)
    products = 2 * weights
    assert products / 1e9 <= float(flops) + 5e-4 <= 2 * products / 1e9 + 1e-3
    total = sum(float(values[1]) for name, values in rows.items() if name != "image to meshes")
    assert float(rows["image to meshes"][1]) == pytest.approx(total, abs=0.05)


def test_what_the_backward_pass_keeps():
    weights, inputs = jnp.ones((3, 5)), jnp.ones((7, 3))
    product = lambda w, x: x @ w  # noqa: E731
    assert kept_for_backward(product, weights, inputs) == 0  # both are given
    assert kept_for_backward(lambda w, x: jnp.exp(x @ w), weights, inputs) == 7 * 5 * 4


def test_frozen_parameters_are_counted():
    config = ERConfig(backbone="resnet18", backbone_width=8, input_size=32, frozen=("pose",))
    net = ERNet(config, rngs=nnx.Rngs(0))
    (pose,) = (part for part in parts_of(net, load_hands(None)) if part.name == "Pose")
    assert measure(pose, 1).parameters == 2 * (21 * (512 + 3) + 1) * 96
