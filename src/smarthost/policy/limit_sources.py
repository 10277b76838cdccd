"""Says which limit of the configuration each of a site's limits comes from."""

from collections.abc import Mapping, Sequence

import msgspec

from smarthost.mail.route import Site
from smarthost.policy.limits import Limit, is_about, site_pattern


def limit_sources(limits: Sequence[Limit], site: Site) -> Mapping[str, str]:
    """Give, by the name of a key, the limit that sets it for a site; keys that have their default are left out.

    `limits` are as configured. The choice is `LimitTable`'s: the most specific, of two the one written first.
    """
    rows = [(number, limit) for number, limit in enumerate(limits, 1) if limit.match.is_of_site]
    rows.sort(key=lambda row: row[1].match.specificity, reverse=True)
    found: dict[str, str] = {}
    for number, limit in rows:
        pattern, route = site_pattern(limit.match.site), limit.match.route
        if (route and route != site.route.name) or (pattern is not None and not is_about(pattern, site)):
            continue
        for key, value in msgspec.structs.asdict(limit).items():
            if value is not None:
                found.setdefault(key, name_limit(number, limit))
    return found


def name_limit(number: int, limit: Limit) -> str:
    """Write which limit is meant: its place in the configuration and what it is about."""
    match = ", ".join(f"{key} {value}" for key, value in msgspec.structs.asdict(limit.match).items() if value)
    return f"[[limit]] {number}" + (f" ({match})" if match else "")
