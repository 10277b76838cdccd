"""Reads [conversion]: what becomes of mail that a next host cannot take as it is."""

from smarthost.config_read import Table, read_choice
from smarthost.policy.conversion import Conversion, Conversions


def read_conversion(table: Table) -> Conversions:
    """Read [conversion]."""
    default = Conversions()
    conversions = Conversions(
        eight_bit=table.take("eight_bit", read_choice(Conversion), default.eight_bit),
        smtputf8=table.take("smtputf8", read_choice(Conversion), default.smtputf8),
    )
    table.finish()
    return conversions
