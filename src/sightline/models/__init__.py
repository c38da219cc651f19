"""Models: families, their parts, what trains in them, and the one way to save and load them."""

import logging

# Where it is installed, bitsandbytes is imported by peft and says that a faster kernel could be fetched from a hub.
# Nothing is fetched here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
