"""A raw dataset of drawn hands in InterHand2.6M's layout: `python -m data_pipeline.synthetic`.

`poses` bends fingers (`skeleton`, `contact`), `scene` places hands, `recording` plans a split,
`picture` draws a view of it (`background`, `skin`, `forearm`), `annotations` tells it in the
dataset's files, `dataset` writes all of it.
"""

from data_pipeline.synthetic.dataset import SPLITS, Settings, write_dataset

__all__ = ["SPLITS", "Settings", "write_dataset"]
