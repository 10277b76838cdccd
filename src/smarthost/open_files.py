"""Says how many connections upstream the limit of open files has room for."""

import logging
import resource

log = logging.getLogger(__name__)

_SHARE = 2  # clients, the spool and name servers have the other half


def connections_within(wanted: int) -> int:
    """Give `wanted`, or half of the files that may be open (RLIMIT_NOFILE) where that is less, which is logged."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or wanted <= soft // _SHARE:
        return wanted
    most = max(soft // _SHARE, 1)
    log.warning("at most %d connections upstream instead of %d: only %d files may be open", most, wanted, soft)
    return most
