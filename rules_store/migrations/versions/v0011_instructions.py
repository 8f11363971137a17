"""Which instructions the request of an example had, so that it is known to be of the same task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("examples", sa.Column("instructions", sa.String(32)))
