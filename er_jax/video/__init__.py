"""Moving hands: frames, tracks with identities, smoothing, and what is made of them."""
