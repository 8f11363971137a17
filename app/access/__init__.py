"""Who may ask, and how much: keys, rates, budgets, and the bound on open requests."""

from app.access.admin_key import load_admin_key
from app.access.callers import Caller, KeyRing
from app.access.load_limit import LoadLimit
from app.access.metering import Charge, Meter

__all__ = [
    "Caller",
    "Charge",
    "KeyRing",
    "LoadLimit",
    "Meter",
    "load_admin_key",
]
