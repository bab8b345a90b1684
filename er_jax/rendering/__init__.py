"""From meshes to pixels: cameras, the rasterizer and overlays; knows no network and no dataset."""
