"""Asks DNS for the key record of a DKIM key, and says whether it fits."""

import asyncio
import os

from smarthost.crypto.dkim_keys import SigningKey
from smarthost.crypto.dkim_published import Comparison, judge_records
from smarthost.network.dns_query import DnsFault, ask, make_stub


def compare_record(key: SigningKey, servers: tuple[str, ...] = ()) -> tuple[Comparison, int]:
    """Compare a key with its record; gives the exit code, too: 0, 75 (DNS did not answer) or 78.

    Raises ValueError when a server is no address.
    """
    found = asyncio.run(ask(make_stub(servers), key.record_name, "TXT"))
    if found.fault is DnsFault.TEMPORARY:
        return Comparison(False, "DNS did not answer"), os.EX_TEMPFAIL
    judged = judge_records(key, [text.decode("utf-8", "replace") for text in found.texts])
    return judged, os.EX_OK if judged.fits else os.EX_CONFIG
