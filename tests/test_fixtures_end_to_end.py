"""The fixtures of both datasets from raw files to metrics, on one device and on four."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from data_pipeline.build import __main__ as build

FIXTURES = Path(__file__).parents[2] / "shared" / "fixtures"

EVALUATE = """
import json, sys
import jax
from er_jax.configs.tiny import get_config
from er_jax.mano import load_hands
from er_jax.evaluation.summary import summarize
from er_jax.models import ERConfig
from er_jax.evaluation.network import TrainedNetwork, evaluate_network
from er_jax.models.functional import create_weights
from er_jax.supervision.loaders import Split
config = get_config()
config.data_dir, config.data.dataset, config.mano_dir, devices = sys.argv[1:]
assert jax.device_count() == int(devices)
net = ERConfig.from_dict(config.model)
trained = TrainedNetwork("untrained", net, create_weights(net, 0), config.depth_box_m, 0)
found = evaluate_network(trained, load_hands(config.mano_dir), Split.of(config, "test"))
print(json.dumps(summarize(found.network.errors)))
"""


def numbers(data_dir: Path, dataset: str, devices: int) -> dict:
    """Every number of an untrained network on the test split, by its path."""
    arguments = [str(data_dir), dataset, str(FIXTURES / "mano"), str(devices)]
    flags = f"--xla_force_host_platform_device_count={devices}"
    result = subprocess.run(
        [sys.executable, "-c", EVALUATE, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": "."},
    )
    summary = json.loads(result.stdout.splitlines()[-1])
    return {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(summary)}


@pytest.mark.slow
@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the fixtures are not beside the repository")
@pytest.mark.parametrize(
    ("name", "raw", "interacting"), [("interhand26m", "ih26m", "MRRPE"), ("hic", "hic", "RRVE")]
)
def test_four_devices_give_the_numbers_of_one(tmp_path, name, raw, interacting):
    arguments = [name, f"--raw_dir={FIXTURES / raw}", f"--data_dir={tmp_path}", "--workers=1"]
    assert build.main(arguments) == 0
    one, four = (numbers(tmp_path, f"{name}/all", devices) for devices in (1, 4))
    assert one["['wrist_aligned']['MPVPE']['all']['count']"] > 0
    assert one[f"['wrist_aligned']['{interacting}']['interacting']['count']"] > 0
    counts = [path for path in one if "count" in path]
    assert [four[path] for path in counts] == [one[path] for path in counts]
    # float32, and a device's part has another shape; a point at a threshold may fall on either side
    shares = {path for path in one if "PCK" in path or "F@" in path or "handedness" in path}
    for paths, tolerance in ((shares, {"abs": 1e-3}), (one.keys() - shares, {"rel": 1e-5})):
        wanted = {path: one[path] for path in paths}
        assert {path: four[path] for path in paths} == pytest.approx(wanted, **tolerance)
