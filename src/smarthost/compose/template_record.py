"""A template as it is kept: what was asked for, with its id, its times, and how often it was changed."""

import msgspec

from smarthost.compose.template_form import TemplateForm, Variable


class TemplateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shows of a template. Times are Unix seconds; `revision` is 1, and one more with each change."""

    id: str
    name: str
    subject: str
    variables: dict[str, Variable] = {}
    created: float
    updated: float
    revision: int = 1


class StoredTemplate(TemplateSummary, frozen=True, kw_only=True):
    """A template with its bodies."""

    html: str = ""
    text: str = ""

    @property
    def form(self) -> TemplateForm:
        """What it was made from."""
        return TemplateForm(
            name=self.name, subject=self.subject, html=self.html, text=self.text, variables=self.variables
        )


_STORED = msgspec.json.Decoder(StoredTemplate)
_SUMMARY = msgspec.json.Decoder(TemplateSummary)


def make_template(
    form: TemplateForm, identity: str, now: float, before: StoredTemplate | None = None
) -> StoredTemplate:
    """Give what is kept of a form that was checked, in the place of the template that there was before."""
    return StoredTemplate(
        id=identity,
        name=form.name,
        subject=form.subject,
        html=form.html,
        text=form.text,
        variables=form.variables,
        created=before.created if before is not None else now,
        updated=now,
        revision=before.revision + 1 if before is not None else 1,
    )


def write_template(template: StoredTemplate) -> bytes:
    """Write a template as JSON, for its record."""
    return msgspec.json.encode(template)


def read_template(data: bytes) -> StoredTemplate:
    """Read a template's record; raises msgspec.DecodeError for what is none."""
    return _STORED.decode(data)


def read_summary(data: bytes) -> TemplateSummary:
    """Read of a template's record what a list shows; raises msgspec.DecodeError for what is none."""
    return _SUMMARY.decode(data)
