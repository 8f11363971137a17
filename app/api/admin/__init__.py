"""`/admin/v1`, for whoever holds the admin key."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.admin import episodes, rules
from app.api.dependencies import AdminKey

router = APIRouter(prefix="/admin/v1", dependencies=[AdminKey])
for part in (rules, episodes):
    router.include_router(part.router)
