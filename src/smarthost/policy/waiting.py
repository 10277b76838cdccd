"""Says in one sentence why an entry waits, for `queue list`, `why` and the mail log."""

from collections.abc import Mapping
from types import MappingProxyType

from smarthost.mail.entry import Why

SENTENCES: Mapping[Why, str] = MappingProxyType(
    {
        Why.NEW: "It has just arrived and waits for its first attempt.",
        Why.RETRY: "The last attempt was refused for now; it is tried again on the retry schedule.",
        Why.NEXT_HOST: "A host has put it off; the attempt goes on at another one.",
        Why.AMBIGUOUS: "The session was lost after the content had been sent, so the peer may have taken it; "
        "it is tried again on the retry schedule.",
        Why.SITE_THROTTLED: "The site could not be reached or refused us, so all its mail is paused; "
        "one probe goes first, and no attempt is spent.",
        Why.SITE_BUSY: "All the connections that the site may have are in use; it goes as soon as one is free.",
        Why.RELAY_BUSY: "All the connections that the relay may have ([delivery] max_connections) are in use; "
        "it goes when its site's turn comes.",
        Why.RATE_LIMITED: "A rate limit of the configuration has been reached; it goes when the limit allows.",
        Why.LOGIN_PAUSED: "Our login was refused, or there is no token for it; that login is paused for some minutes.",
        Why.QUOTA_USED: "The upstreams of its pool that are well have used up their quotas; "
        "it goes as soon as one of them may take more, and no attempt is spent.",
        Why.NO_UPSTREAM: "No upstream of its pool can be used now; it goes as soon as one can, "
        "and no attempt is spent.",
        Why.AUTOMATION: "A rule of [[automation]] has suspended the site because of what it replied; "
        "no attempt is spent, and `smarthost queue flush` ends it early.",
        Why.SUSPENDED: "A person has suspended its site, its route or its user; no attempt is spent, "
        "and `smarthost resume` ends it.",
        Why.DNS_BUSY: "Where it goes is being looked up in DNS, and as many names are as may be at a time: "
        "each has its turn.",
        Why.UNRESOLVED: "DNS gave no answer about where to deliver; it is asked again on the retry schedule.",
        Why.TLS_POLICY: "The MTA-STS policy of its domain allows none of the mail hosts that DNS names: somebody is in "
        "the way, or the domain's own records do not agree; both are asked for again on the retry schedule.",
        Why.SCHEDULED: "Its sender asked that it be sent later.",
        Why.HELD: "It is held until somebody releases it.",
        Why.REPORT_FAILED: "It is a report that could not be delivered; reports are never reported on, "
        "so it waits for a person.",
        Why.INTERNAL_ERROR: "An error of ours stopped it, which is in the log; it waits for a person.",
        Why.CONTENT_LOST: "Its content is missing or damaged in the spool; it waits for a person.",
        Why.DEAD_LETTER: "It has failed, and its sender was told; it is kept for a time ([http] dead_letter_keep), "
        "so that it can be sent again.",
    }
)
