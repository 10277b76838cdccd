"""Filling: a message that names a template, made into one with subject and bodies of its own."""

import msgspec

from smarthost.compose.fault import FieldFault
from smarthost.compose.letter import check_submission
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.submission import Submission
from smarthost.queue.templates import Templates
from smarthost.reception.http.problem import wrong_fields

_FROM_TEMPLATE = ("subject", "text", "html")


async def fill_submission(
    templates: Templates, tenant: str, submission: Submission, limits: SubmissionLimits
) -> Submission:
    """Give a submission with its template filled in; raises Refused (422) with everything that is wrong.

    What is wrong with a variable names the recipients, who all get the same text.
    """
    if not submission.template_id:
        raise wrong_fields([FieldFault("variables", "are for a template; template_id is missing")])
    faults = [
        FieldFault(name, "comes from the template; leave it out, or template_id")
        for name in _FROM_TEMPLATE
        if getattr(submission, name)
    ]
    ready = await templates.ready(tenant, submission.template_id)
    if ready is None:
        faults.append(FieldFault("template_id", "there is no such template"))
    if ready is None or faults:
        raise wrong_fields(faults)
    rendered = ready.render(submission.variables)
    if not isinstance(rendered, tuple):
        return msgspec.structs.replace(
            submission, subject=rendered.subject, html=rendered.html, text=rendered.text, template_id="", variables={}
        )
    letter = check_submission(msgspec.structs.replace(submission, text="-"), limits)
    if isinstance(letter, tuple):
        raise wrong_fields([*rendered, *letter])
    first, *others = (recipient.address for recipient in letter.recipients)
    to = f"{first} and {len(others)} more" if others else first
    raise wrong_fields([FieldFault(fault.field, f"{fault.message}, for {to}") for fault in rendered])
