"""Sightline takes a medical vision-language model through its whole life, and says how sure it is of each number.

For research, not for clinical use.
"""

__version__ = "0.1.0"

NOTICE = "For research only. Not a medical device, not for clinical use."
