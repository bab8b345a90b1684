"""The example for Daft, as a user runs it, on pictures drawn here."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from coded_pictures import picture
from test_detection import needs_weights

from data_pipeline.synthetic.sequence import draw_sequence

pytest.importorskip("daft")
ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@needs_weights
def test_hands_become_a_column(tmp_path):
    drawn = draw_sequence(9, 0.02, 30.0).frame(0)
    cv2.imwrite(str(tmp_path / "drawn.png"), drawn[..., ::-1])
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 300, 3), 90, np.uint8))
    (tmp_path / "cut.png").write_bytes(picture(1)[:100])
    command = [sys.executable, "examples/daft_hands.py", f"{tmp_path}/*.png", f"{tmp_path}/out"]
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(Path.home())}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    found = {Path(row["path"]).name: row["hands"] for row in rows}
    assert found["cut.png"] is None and found["grey.png"] == []
    assert sorted(hand["side"] for hand in found["drawn.png"]) == ["left", "right"]
    for hand in found["drawn.png"]:
        assert np.shape(hand["joints_m"]) == (21, 3) and len(hand["betas"]) == 10
        assert 0.4 < hand["joints_m"][0][2] < 1.2  # the examples' hands are 0.8 m away
