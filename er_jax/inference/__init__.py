"""A trained network put to use: pictures in, hands, exported models and descriptions out."""
