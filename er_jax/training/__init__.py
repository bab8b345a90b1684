"""How a network learns: state, step, loop, optimizer, checkpoints, logs; no report is made here."""
