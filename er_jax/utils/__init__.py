"""What knows nothing of hands: files, errors, progress, devices; imports nothing of the project."""
