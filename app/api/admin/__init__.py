"""`/admin/v1`, for keys with `admin-read` or `admin-write`, within their namespaces."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.admin import episodes, keys, rules
from app.api.dependencies import AdminAccess

router = APIRouter(prefix="/admin/v1", dependencies=[AdminAccess])
for part in (rules, episodes, keys):
    router.include_router(part.router)
