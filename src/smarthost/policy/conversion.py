"""What is done with a message that a host cannot take as it is: it is converted, or it fails."""

from enum import IntEnum, StrEnum

import msgspec


class Conversion(StrEnum):
    """What becomes of a message whose next host lacks an extension that it needs."""

    CONVERT = "convert"
    FAIL = "fail"


class Conversions(msgspec.Struct, frozen=True):
    """What a person decided: for 8-bit bodies without 8BITMIME, for UTF-8 headers and addresses without SMTPUTF8."""

    eight_bit: Conversion = Conversion.CONVERT
    smtputf8: Conversion = Conversion.CONVERT


class Form(IntEnum):
    """In which form a message travels, each fit for fewer needs: as accepted, with a header in ASCII, all in ASCII."""

    ORIGINAL = 0
    ASCII_HEADER = 1
    SEVEN_BIT = 2
