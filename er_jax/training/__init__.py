"""Training: state, step, loop, optimizer, checkpoints, and the log of metrics."""
