"""Readers of raw dataset folders and the builder of TFDS datasets; nothing that training needs."""
