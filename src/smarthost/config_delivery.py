"""Reads [delivery]: what holds for the delivery to all sites together."""

from smarthost.config_read import Table, read_count
from smarthost.config_types import DeliverySettings


def read_delivery(table: Table) -> DeliverySettings:
    """Read [delivery]."""
    default = DeliverySettings()
    settings = DeliverySettings(table.take("max_connections", read_count, default.max_connections))
    table.finish()
    return settings
