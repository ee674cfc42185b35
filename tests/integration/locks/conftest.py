"""The migrated database that locks are tried on."""

from tests.integration.operations.conftest import world

__all__ = ["world"]
