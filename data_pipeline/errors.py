"""Errors that a user of the data pipeline can do something about."""


class DataError(Exception):
    """Something is wrong with the data; the message names the file, the reason and the remedy."""


class BadImageError(DataError):
    """An image file is missing, cut short, unreadable or not of the annotated size."""
