"""Says whether DANE, where a route asks for it, can prove anything on this machine."""

from smarthost.config import Config, Dnssec
from smarthost.mail.route import TlsLevel
from smarthost.network.dns_query import believes_ad, make_stub


def dnssec_warnings(config: Config) -> tuple[str, ...]:
    """Warn where a route asks for DANE, and the system's resolver is not one whose AD bit is believed."""
    routes = [config.fallback, *(rule.route for rule in config.route_rules)]
    routes += [upstream.route for route in routes for upstream in route.pool]
    stub = make_stub(config.dns.servers, dnssec=config.dns.dnssec)
    if config.dns.dnssec is Dnssec.OFF or believes_ad(stub) or not any(route.tls is TlsLevel.DANE for route in routes):
        return ()
    return (
        'tls = "dane" proves nothing: dnssec = "auto" believes a resolver on this machine, or one in [dns] servers, '
        "and the system's is neither",
    )
