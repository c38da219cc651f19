"""Parts that a family can be put together from, one file each."""
