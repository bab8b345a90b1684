"""The table of modules: parameters, FLOPs and activations against counts by hand."""

import jax.numpy as jnp
import pytest
from rich.console import Console

from er_jax.mano import load_hands
from er_jax.models import ERConfig
from er_jax.models.describe import describe, kept_for_backward

TINY = {
    "backbone": "resnet18",
    "backbone_width": 8,
    "input_size": 64,
    "feature_dim": 16,
    "heads": 2,
    "desim_depth": 1,
    "fusejoint_depth": 1,
}


@pytest.fixture(scope="module")
def rows():
    table = describe(ERConfig(**TINY, use_deocc=False), load_hands(None), batch=2)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    cells = [line.strip("│").split("│") for line in captured.get().splitlines() if "│" in line]
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
