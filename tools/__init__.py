"""What the project's own data were made with; nothing that runs imports it."""
