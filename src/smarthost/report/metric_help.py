"""What each metric says, and what to alert on: the help texts of `/metrics`."""

from collections.abc import Mapping

HELP: Mapping[str, str] = {
    "messages_accepted": (
        "Messages answered 250 after the commit, by listener and user. Alert when the rate falls to 0 in "
        "hours that usually have mail."
    ),
    "messages_rejected": (
        "Messages and recipients refused, by listener and reason (the enhanced status, or "
        '"suppressed" for a recipient on the suppression list). Alert when the rate '
        "of 4.3.1 (disk) or 4.3.0 (our own error) is above 0, or when 5.7.x jumps (wrong password, or a "
        "guesser)."
    ),
    "recipients": (
        "Recipients by route and what became of them in an attempt. Alert when failed, or delayed, is more "
        "than 5 % of relayed over 15 min on a route."
    ),
    "rate_limited": (
        "Times that mail had to wait for a rate of its site, by route; many messages may wait behind one. No alert."
    ),
    "attempts": (
        "Attempts by route, by the stage that decided and by the class of the reply (none: no reply). Alert "
        "when stage connect, starttls or auth rises on a route: that upstream is down, or refuses our login."
    ),
    "webhooks": (
        "Events posted to webhooks, by whether the receiver took them; dead ones were not taken for 33 hours. "
        "Alert on dead, and when refused stays above taken."
    ),
    "client_syncs": (
        "Calls with delivery reports to applications, by whether they answered well. Alert when none is taken "
        "for an hour."
    ),
    "bounces": (
        "What hosts and providers said later of relayed mail, by what it was; unknown is nobody's message, unparsed no "
        "report. Alert when hard or complaint jumps, or when unparsed stays above all others."
    ),
    "reports": "Reports (DSN) made for senders. Alert on a sudden rise.",
    "reports_failed": (
        "Reports that could not be delivered and are held. Alert on any increase: smarthost queue list --why "
        "report_failed."
    ),
    "messages_unsigned": (
        "Messages accepted without a DKIM signature, as no key fits the From domain. Alert on any increase "
        "when all mail shall be signed."
    ),
    "ambiguous": (
        "Transactions whose session was lost behind the end of data: the recipients may get the message "
        "twice. Alert when it keeps rising: a firewall or an upstream that times out early."
    ),
    "conversions": (
        "Messages converted for hosts that lack 8BITMIME or SMTPUTF8, by form (ascii_header, seven_bit). No alert."
    ),
    "state_damaged": (
        "What was kept over a restart and could not be read: counters of limits and things learned (memory), or what "
        "is suspended (suspensions; then nothing is sent until a person resumes it). Alert on any increase."
    ),
    "internal_errors": "Errors of our own, by part; the log has a traceback of each. Alert on any increase.",
    "sessions": "Sessions opened by clients, by listener. Alert together with sessions_open.",
    "sessions_open": "Sessions of clients that are open, by listener. Alert at 80 % of max_connections.",
    "logins": "AUTH by result: ok, refused, busy. Alert when refused jumps: a guesser, or a changed password.",
    "tls_sessions": "TLS handshakes by direction (in, out) and version. Alert when TLSv1 or TLSv1.1 appears.",
    "accept_seconds": (
        "Seconds from the end of data to the 250. Alert when the 99th percentile is above 1 s: a slow disk."
    ),
    "relay_seconds": (
        "Seconds from accepted to relayed, by priority. Alert when the median is above what your mail may wait."
    ),
    "commit_seconds": "Seconds a spool commit takes, sync included. Alert when the 99th percentile is above 0.5 s.",
    "commit_messages": (
        "Messages a spool commit holds. No alert: it grows with the load, that is group commit at work."
    ),
    "dkim_seconds": (
        "Seconds until a message has its signatures, waiting included. Alert when the 99th percentile is above "
        "0.1 s: the processor is full."
    ),
    "dns_seconds": (
        "Seconds a DNS question takes, its turn and the wire, by type and result. Alert when result timeout or failure "
        "is more than 5 %."
    ),
    "queue_messages": (
        "Entries in the queue: active ones have a next attempt, parked ones wait for a person. Alert when "
        "parked is above 0, or when active grows for 30 min."
    ),
    "queue_oldest_seconds": "Age of the oldest entry, by state. Alert when active is above 4 h.",
    "site_queue": "Entries that are ready for a site and wait for a connection. Alert when it grows for 30 min.",
    "site_connections": (
        "Connections to a site, by state (opening, busy, idle). No alert: compare with the site's limit."
    ),
    "delivery_connections": (
        "Connections to all sites: taken, and allowed ([delivery] max_connections, or what RLIMIT_NOFILE leaves). "
        "Alert when taken is at allowed for 15 min."
    ),
    "delivery_sites_waiting": (
        "Sites whose mail waits for a connection that other sites have. Alert when it is above 0 for 15 min."
    ),
    "dns_questions": (
        "Questions to name servers: running, and waiting for their turn. Alert when waiting is above 0 for 5 min: name "
        "servers do not answer."
    ),
    "site_suspended": (
        "1 for a site that gets nothing at present: throttled after failures, or suspended by a rule of "
        "[[automation]]. Alert when it stays 1 for an hour."
    ),
    "upstream_certificate_expiry_timestamp_seconds": (
        "When the certificate that a relayhost showed at the last session expires, in Unix seconds, by site and host. "
        "Alert when it is less than 7 days ahead (this - time() < 604800): with tls = verify, mail waits from then on."
    ),
    "disk_free_ratio": (
        "Free space of the data directory, 0 to 1. Alert below 0.1; the relay itself stops accepting at min_free_space."
    ),
    "event_loop_lag_seconds": (
        "How late the event loop is. Alert above 0.5 s for a minute: the processor is full, or something blocks."
    ),
    "log_lines_dropped": "Log lines lost since the reader of standard output stopped reading. Alert on any increase.",
}
