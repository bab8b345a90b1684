"""What a person starts: each command reads the whole config and calls the folders below it."""
