"""Utilities (files, errors, progress, devices) know nothing of hands and import nothing of ours."""
