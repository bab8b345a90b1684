"""A trained network put to use: images in, hands, exported models and descriptions out."""
