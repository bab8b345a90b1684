"""Training: state, step, loop, optimizer, checkpoints, logs; no report is made here."""
