"""Says in plain English what a report reports: what happened to whom, why, and what the reader may do."""

import re
from collections.abc import Sequence

from smarthost.mail.outcome import Action, Outcome, Stage

_WIDTH = 76  # columns; a word that is longer stands alone
_LONGEST_WORD = 900  # octets, so that no line comes near 998
_MOST = 2000  # characters of one diagnostic text
_HARMFUL = re.compile("[\x00-\x20\x7f-\xa0\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")

_OPENINGS = {
    Action.FAILED: "Your message could not be delivered to the recipients below. It will not be tried again.",
    Action.DELAYED: (
        "Your message has not yet been delivered to the recipients below. It is kept safe and will be tried again"
        "{until}. You need not do anything, and need not send it again: you will hear if it fails for good."
    ),
    Action.RELAYED: (
        "Your message was handed on for the recipients below to a mail system that sends no such notices itself. "
        "You may not hear of its further way."
    ),
}
# What the reader may do, by the enhanced status' subject and detail (RFC 3463 3), else by the subject alone.
_ADVICE = {
    "1.1": "The mailbox does not exist. Check the address for mistakes, and ask the recipient for the right one.",
    "1.2": "The domain does not exist. Check what stands behind the @ for mistakes.",
    "1.3": "The address is not written correctly. Check it for mistakes.",
    "1.10": "The domain takes no mail at all. Check what stands behind the @ for mistakes.",
    "1": "Check the recipient's address for mistakes.",
    "2.1": "The mailbox is closed for now. Reach the recipient in another way.",
    "2.2": "The mailbox is full. Ask the recipient to make room, then send the message again.",
    "2.3": "The message is too large for this mailbox. Send less, or share large files in another way.",
    "2": "The mailbox does not take the message. Reach the recipient in another way.",
    "3.4": "The message is too large for the recipient's mail system. Share large files in another way.",
    "3": "The recipient's mail system has a problem. Try again later, or reach the recipient in another way.",
    "4": "The recipient's mail system could not be reached. Try again later; if it lasts, tell the postmaster.",
    "5": "The mail systems did not understand each other. Tell the postmaster.",
    "6.3": "The recipient's mail system cannot take content of this kind. Send it without 8-bit characters.",
    "6.7": "The recipient's mail system takes no addresses or headers beyond ASCII. Use an ASCII address.",
    "6": "The recipient's mail system does not take content of this kind.",
    "7": "The recipient's mail system refused the message by its rules. Its answer may say what to do.",
}
_STAGES = {
    Stage.EHLO: "EHLO",
    Stage.STARTTLS: "STARTTLS",
    Stage.AUTH: "AUTH",
    Stage.MAIL: "MAIL",
    Stage.RCPT: "RCPT",
    Stage.DATA: "DATA",
    Stage.CONTENT: "the end of the message",
}


def explain(outcomes: Sequence[Outcome], hostname: str, retry_until: str) -> list[str]:
    """Give the lines of a report's text for people, without line ends.

    `retry_until` is a date for the delayed, or "". Recipients are grouped by what became of them, failures first.
    """
    lines = [f"This is the mail system at {clean(hostname)}."]
    until = f" until {retry_until}" if retry_until else ""
    for action, opening in _OPENINGS.items():
        group = [outcome for outcome in outcomes if _kind(outcome.action) is action]
        if group:
            lines += ["", *wrap(opening.format(until=until))]
        for outcome in group:
            lines += ["", *_recipient(outcome)]
    closing = "The second part of this report says the same for programs; the third part is your message or its header."
    return [*lines, "", *wrap(closing)]


def wrap(text: str, *, first: str = "", indent: str = "") -> list[str]:
    """Break text at spaces into lines of at most 76 columns: one that begins with `first`, the others with `indent`.

    A word that is longer stands on a line of its own, and is cut where it would near 998 octets.
    """
    lines: list[str] = []
    line = first
    is_empty = True
    for word in text.split(" "):
        for piece in _cut(word):
            if not is_empty and len(line) + 1 + len(piece) > _WIDTH:
                lines.append(line)
                line = indent + piece
            else:
                line += piece if is_empty else " " + piece
            is_empty = False
    return [*lines, line]


def clean(text: str) -> str:
    """Make text from outside harmless: control, direction and line characters become one space; long text is cut."""
    text = _HARMFUL.sub(" ", text).strip()
    return text if len(text) <= _MOST else text[:_MOST] + "..."


def _kind(action: Action) -> Action:
    return Action.RELAYED if action is Action.EXPANDED else action


def _recipient(outcome: Outcome) -> list[str]:
    """Say who, what was answered or found, and what may help."""
    lines = wrap(f"<{clean(outcome.recipient.address)}>")
    sentences = []
    original = outcome.recipient.orcpt.partition(";")[2]
    if original and original != outcome.recipient.address:
        sentences.append(f"(which you wrote as {clean(original)})")
    peer = clean(outcome.host) + (f" [{clean(outcome.address)}]" if outcome.address else "")
    if outcome.reply is not None:
        to_stage = f" to {_STAGES[outcome.stage]}" if outcome.stage in _STAGES else ""
        sentences.append(f"{peer or 'The peer'} answered{to_stage}: {clean(str(outcome.reply))}")
    else:
        sentences.append(clean(outcome.reason) + (f" ({peer})" if outcome.host else ""))
    if outcome.ambiguous:
        sentences.append("It may have arrived all the same: the connection broke before the answer.")
    lines += [line for sentence in sentences for line in wrap(sentence, first="    ", indent="    ")]
    advice = _advice(outcome)
    return [*lines, "", *wrap(advice, first="    ", indent="    ")] if advice else lines


def _advice(outcome: Outcome) -> str:
    if outcome.action is not Action.FAILED:
        return ""
    subject = f"{outcome.status.subject}"
    return _ADVICE.get(f"{subject}.{outcome.status.detail}") or _ADVICE.get(subject, "")


def _cut(word: str) -> list[str]:
    if len(word) <= _WIDTH:
        return [word]
    pieces: list[str] = []
    piece = ""
    size = 0
    for character in word:
        size += len(character.encode("utf-8", "backslashreplace"))
        if size > _LONGEST_WORD:
            pieces.append(piece)
            piece, size = "", len(character.encode("utf-8", "backslashreplace"))
        piece += character
    return [*pieces, piece]
