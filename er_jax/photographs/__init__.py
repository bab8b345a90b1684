"""Photographs in, persons' hands out: detection, network and fit put together; no commands here."""
