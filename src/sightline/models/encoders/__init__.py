"""Image-text encoders, one file each."""
