"""Why an attachment cannot be had."""

import msgspec


class SourceFault(msgspec.Struct, frozen=True, gc=False):
    """What is wrong with an attachment's source: the field of the request, and a sentence for a person.

    `passing` says that it may be different when it is tried again later.
    """

    field: str
    message: str
    passing: bool = False
