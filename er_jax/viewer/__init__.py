"""Viewer: any result of this project in 3D, live in a browser or as one HTML file."""
