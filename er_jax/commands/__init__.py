"""Commands are what a person starts; each reads the whole config and calls the folders below it."""
