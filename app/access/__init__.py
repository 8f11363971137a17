"""Who may ask, and how much: keys, rates, budgets, and the bound on open requests."""

from app.access.admin_key import load_admin_key
from app.access.callers import Caller, KeyRing
from app.access.load_limit import Load
from app.access.metering import Bill, Meter

__all__ = [
    "Bill",
    "Caller",
    "KeyRing",
    "Load",
    "Meter",
    "load_admin_key",
]
