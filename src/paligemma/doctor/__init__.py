"""Does this model compute what it should, on this machine? The checks of a loaded predictor, each with what to do when it fails."""

from .checks import Check, check, examine
from .reference import write_reference

__all__ = ["Check", "check", "examine", "write_reference"]
