"""How large the parts of a submission may be."""

import msgspec

_MIB = 1024 * 1024


class SubmissionLimits(msgspec.Struct, frozen=True):
    """What a message by HTTP is held to; `attachment` and `attachments` are octets of one and of all together.

    `subject` is characters; `metadata` is octets of JSON.
    """

    recipients: int = 100
    subject: int = 998
    attachment: int = 25 * _MIB
    attachments: int = 100 * _MIB
    attachment_count: int = 100
    metadata: int = 16 * 1024
