"""Cursors of the event log: how they are made, and the time that they tell."""

import sqlite3

# A row of the log is a transaction; a cursor is the number of its row times this, plus the event's place in it.
PLACES = 4096


def number_at(when: float) -> int:
    """Give the lowest number that a row of a Unix time can have.

    Numbers are milliseconds, or one more than the last: they grow also when a damaged database was set aside and the
    log begins anew, and as cursors they stay below 2**53 until 2039, which every reader of JSON can count.
    """
    return max(int(when * 1000), 1)


def cursor_at(when: float) -> int:
    """Give a cursor behind which every event of a Unix time and later lies, as far as the clock only went forward."""
    return number_at(when) * PLACES - 1


def end_of(number: int) -> int:
    """Give the highest cursor that a row can have; 0 for no row."""
    return number * PLACES + PLACES - 1 if number else 0


def last_number(connection: sqlite3.Connection) -> int:
    """Read the number of the latest row, 0 without one."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM event_log").fetchone()[0])
