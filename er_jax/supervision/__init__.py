"""From annotations to what a network is trained on and compared with; knows no training loop."""
