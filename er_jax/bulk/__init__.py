"""Millions of pictures: units of work that are done once, on one machine or many."""
