"""`/admin/v1`, for keys with `admin-read` or `admin-write`, within their namespaces."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.admin import curation, episodes, events, examples, jobs, keys, namespaces, rules
from app.api.dependencies import AdminAccess

router = APIRouter(prefix="/admin/v1", dependencies=[AdminAccess])
for part in (rules, curation, examples, episodes, keys, namespaces, jobs, events):
    router.include_router(part.router)
