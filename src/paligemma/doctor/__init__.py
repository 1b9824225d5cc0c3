"""Does this model compute what it should, on this machine? The checks of a loaded predictor, each with what to do when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..predictor import Predictor
from .checking import Check, carry_out

if TYPE_CHECKING:
    from .reference import write_reference

__all__ = ["Check", "check", "examine", "write_reference"]


def examine(predictor: Predictor) -> Iterator[Check]:
    """Every check, each as soon as it is done. A check that breaks down counts as failed; nothing is raised."""
    if hasattr(predictor.network, "model"):
        from .checks import CHECKS
        from .patient import Patient

        return carry_out(CHECKS, Patient(predictor))
    from .pack_checks import PACK_CHECKS, PackPatient

    return carry_out(PACK_CHECKS, PackPatient(predictor))


def check(predictor: Predictor) -> list[Check]:
    """All checks of `examine`."""
    return list(examine(predictor))


def __getattr__(name: str) -> Any:
    if name != "write_reference":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .reference import write_reference  # needs torch

    return write_reference
