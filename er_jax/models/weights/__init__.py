"""A network's weights in other formats than checkpoints: safetensors and PyTorch's files."""
