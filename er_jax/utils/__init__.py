"""What knows nothing of the rest of the project lives here; what imports any of it may not."""
