"""Who wrote a rule: the name of the model, where it is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rules", sa.Column("written_by", sa.Text))
