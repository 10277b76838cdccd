"""Filling: a batch made ready for its recipients: its template read, its letter checked."""

import msgspec

from smarthost.compose.batch_form import BatchForm, make_letter, urgency_of
from smarthost.compose.fault import FieldFault
from smarthost.compose.letter import Letter
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.template_form import CompiledForm
from smarthost.mail.envelope import Priority
from smarthost.policy.account import route_name
from smarthost.policy.admission import User

Faults = tuple[FieldFault, ...]


class Filling(msgspec.Struct, frozen=True):
    """What each recipient's letter is made of.

    `wishes` are the fields that say what is wished of the relay; they are taken out before a message is signed.
    `keeps_return_path` where the batch names a return path.
    """

    template: CompiledForm
    letter: Letter
    wishes: bytes
    priority: Priority
    keeps_return_path: bool = False


def make_filling(
    template: CompiledForm | Faults, form: BatchForm, user: User, postmaster: str, limits: SubmissionLimits
) -> Filling | Faults:
    """Check a batch beside its template, which was read; gives everything that is wrong with both."""
    faults: list[FieldFault] = []
    if isinstance(template, tuple):
        faults += [FieldFault("template_id", f"{each.field}: {each.message}") for each in template]
    letter = make_letter(form, postmaster, limits)
    if isinstance(letter, tuple):
        faults += letter
    for name in ("route", "account_id"):
        text = getattr(form, name)
        if text and not (text.isascii() and text.isprintable()):
            faults.append(FieldFault(name, "is not a name"))
    if faults or isinstance(template, tuple) or isinstance(letter, tuple):
        return tuple(faults)
    keeps = form.return_path is not None
    return Filling(template, letter, _wishes(form, user), urgency_of(form) or user.priority, keeps)


def _wishes(form: BatchForm, user: User) -> bytes:
    fields = b""
    if form.tag:
        fields = b"X-Smarthost-Tag: %s\r\n" % form.tag.encode()
    route = route_name(user.name, form.account_id) if form.account_id else form.route
    if route:
        fields += b"X-Smarthost-Route: %s\r\n" % route.encode()
    return fields
