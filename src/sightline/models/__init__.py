"""Models: families, their parts, what trains in them, and the one way to save and load them."""
