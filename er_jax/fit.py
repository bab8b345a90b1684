"""`python -m er_jax.fit --keypoints FILE`: hand meshes from keypoints that any detector found."""

import sys

from er_jax.commands.fit import main

if __name__ == "__main__":
    sys.exit(main())
