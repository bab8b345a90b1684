"""Hand models fitted to keypoints, joints and a network's reconstructions; no images, no files."""
