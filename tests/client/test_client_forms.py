"""The client's types beside the relay's: no field is sent that is not known, and none is needed that may be missing."""

import msgspec
import pytest
from msgspec.structs import NODEFAULT, fields

from smarthost.client import accounts as our_accounts
from smarthost.client import batches as our_batches
from smarthost.client import dead_letters as our_dead_letters
from smarthost.client import events as our_events
from smarthost.client import keys as our_keys
from smarthost.client import messages as our_messages
from smarthost.client import metrics as our_metrics
from smarthost.client import suppressions as our_suppressions
from smarthost.client import templates as our_templates
from smarthost.client import webhooks as our_webhooks
from smarthost.compose import batch_form, submission, template_form
from smarthost.reception.http import (
    accounts,
    batch_answers,
    batches,
    dead_letters,
    handing,
    keys_admin,
    listing,
    metrics,
    standing,
    suppressions,
    templates,
    webhooks,
)
from smarthost.report.maillog import EventLine


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (our_messages.NewMessage, submission.Submission),
        (our_messages.Attachment, submission.Attachment),
        (our_messages.StoredObject, submission.StoredObject),
        (our_messages.RetryProfile, submission.RetryProfile),
        (our_batches.NewBatch, batch_form.BatchForm),
        (our_batches.BatchRecipient, batch_form.BatchRecipient),
        (our_templates.NewTemplate, template_form.TemplateForm),
        (our_templates.Variable, template_form.Variable),
        (our_accounts.NewAccount, accounts.NewAccount),
        (our_suppressions.NewSuppression, suppressions.NewSuppression),
    ],
)
def test_what_is_sent_is_known(ours: type[msgspec.Struct], theirs: type[msgspec.Struct]) -> None:
    """Every field that the client may send is one of the relay's."""
    known = {field.encode_name for field in fields(theirs)}
    assert {field.encode_name for field in fields(ours)} <= known


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (our_messages.SentMessage, handing.TakenMessage),
        (our_messages.RecipientResult, handing.Result),
        (our_messages.Message, listing.Shown),
        (our_messages.Standing, standing.Standing),
        (our_messages.Changed, listing.Done),
        (our_dead_letters.DeadLetter, dead_letters.DeadLetter),
        (our_webhooks.Webhook, webhooks.ShownWebhook),
        (our_accounts.Account, accounts.ShownAccount),
        (our_keys.ApiKey, keys_admin.ShownKey),
        (our_templates.Template, templates.ListedTemplate),
        (our_suppressions.Suppression, suppressions.ShownSuppression),
        (our_batches.SentBatch, batch_answers.MadeBatch),
        (our_batches.Batch, batches.ShownBatch),
        (our_batches.BatchEvent, batches.BatchEvent),
        (our_batches.BatchSummary, batches.BatchSummary),
        (our_events.Event, EventLine),
        (our_metrics.Metrics, metrics.Metrics),
        (our_metrics.AdminMetrics, metrics.AdminMetrics),
    ],
)
def test_what_is_needed_is_sent(ours: type[msgspec.Struct], theirs: type[msgspec.Struct]) -> None:
    """Every field that an answer must have for the client is one that the relay always sends."""
    always = {
        field.encode_name
        for field in fields(theirs)
        if field.default is NODEFAULT and field.default_factory is NODEFAULT
    }
    needed = {
        field.encode_name for field in fields(ours) if field.default is NODEFAULT and field.default_factory is NODEFAULT
    }
    assert needed <= always
