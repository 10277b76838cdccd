"""Checks attachments: one source each, sizes, names and types."""

import re
from types import MappingProxyType

import msgspec

from smarthost.compose.fault import FieldFault, excerpt
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.mailbox import CONTROL
from smarthost.compose.submission import Attachment, Submission

MAX_FILENAME = 255  # octets of UTF-8: encoded after RFC 2231 they still fit into one line

_TOKEN = r"[!#$%&'*+\-.^_`{|}~0-9A-Za-z]{1,64}"
_VALUE = rf'(?:{_TOKEN}|"[^"\\\x00-\x1f\x7f-\U0010ffff]{{0,128}}")'
_CONTENT_TYPE = re.compile(rf"({_TOKEN})/{_TOKEN}(?:\s*;\s*{_TOKEN}={_VALUE}){{0,8}}")
_CID = re.compile(r"[!-;=?-~]{1,250}")  # printable ASCII without angle brackets
_MD5 = re.compile(r"[0-9A-Fa-f]{32}")
_MARK = re.compile(r"_?\{MD5:([0-9A-Fa-f]{32})\}", re.IGNORECASE)
_COMPOSITE = frozenset({"multipart", "message"})
_UNKNOWN = "application/octet-stream"
# By the ending of a file name; a table of our own, for the standard library's differs from machine to machine.
_TYPES = MappingProxyType(
    {
        "7z": "application/x-7z-compressed",
        "avif": "image/avif",
        "bmp": "image/bmp",
        "css": "text/css",
        "csv": "text/csv",
        "doc": "application/msword",
        "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "gif": "image/gif",
        "gz": "application/gzip",
        "htm": "text/html",
        "html": "text/html",
        "ics": "text/calendar",
        "jpeg": "image/jpeg",
        "jpg": "image/jpeg",
        "json": "application/json",
        "log": "text/plain",
        "md": "text/markdown",
        "mp3": "audio/mpeg",
        "mp4": "video/mp4",
        "odp": "application/vnd.oasis.opendocument.presentation",
        "ods": "application/vnd.oasis.opendocument.spreadsheet",
        "odt": "application/vnd.oasis.opendocument.text",
        "p7m": "application/pkcs7-mime",
        "p7s": "application/pkcs7-signature",
        "pdf": "application/pdf",
        "png": "image/png",
        "ppt": "application/vnd.ms-powerpoint",
        "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "rtf": "application/rtf",
        "svg": "image/svg+xml",
        "tar": "application/x-tar",
        "tif": "image/tiff",
        "tiff": "image/tiff",
        "txt": "text/plain",
        "vcf": "text/vcard",
        "wav": "audio/wav",
        "webp": "image/webp",
        "xls": "application/vnd.ms-excel",
        "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xml": "application/xml",
        "zip": "application/zip",
    }
)
_MIB = 1024 * 1024


def check_attachments(
    submission: Submission, limits: SubmissionLimits, faults: list[FieldFault]
) -> tuple[Attachment, ...]:
    """Check all attachments; gives them with type, disposition and the MD5 that a file name carries filled in."""
    given = submission.attachments
    if len(given) > limits.attachment_count:
        faults.append(FieldFault("attachments", f"has {len(given)}; {limits.attachment_count} are allowed"))
        return ()
    cids: set[str] = set()
    total = 0
    completed = []
    for place, each in enumerate(given):
        path = f"attachments[{place}]"
        for name, wrong in (*_wrong_with_name(each), *_wrong_with_source(each, limits)):
            faults.append(FieldFault(f"{path}.{name}" if name else path, wrong))
        if each.cid and each.cid in cids:
            faults.append(FieldFault(f"{path}.cid", "is there twice"))
        cids.add(each.cid)
        total += len(each.content or b"")
        completed.append(complete(each, bool(submission.html)))
    if total > limits.attachments:
        faults.append(FieldFault("attachments", too_large_together(limits.attachments)))
    return tuple(completed)


def complete(attachment: Attachment, has_html: bool) -> Attachment:
    """Fill in what an attachment leaves open, and take the {MD5:...} mark out of its file name."""
    filename, md5 = attachment.filename, attachment.content_md5.lower()
    if (mark := _MARK.search(filename)) is not None:
        filename = filename[: mark.start()] + filename[mark.end() :]
        md5 = md5 or mark[1].lower()
    disposition = attachment.disposition.lower()
    if not disposition or (disposition == "inline" and not has_html):
        disposition = "inline" if attachment.cid and has_html else "attachment"
    content_type = attachment.content_type.strip() or guess_type(filename)
    return msgspec.structs.replace(
        attachment, filename=filename, content_md5=md5, disposition=disposition, content_type=content_type
    )


def guess_type(filename: str) -> str:
    """Give the content type that goes with the ending of a file name, application/octet-stream if none is known."""
    return _TYPES.get(filename.rpartition(".")[2].lower(), _UNKNOWN) if "." in filename else _UNKNOWN


def too_large(most: int) -> str:
    """Say that one attachment has too many octets."""
    return f"is larger than {_in_words(most)}, the most that one attachment may have"


def too_large_together(most: int) -> str:
    """Say that the attachments have too many octets in all."""
    return f"the attachments are larger than {_in_words(most)} in all"


def _in_words(octets: int) -> str:
    return f"{octets // _MIB} MiB" if octets % _MIB == 0 else f"{octets} octets"


def _wrong_with_name(attachment: Attachment) -> list[tuple[str, str]]:
    """Give what is wrong with file name, type, cid, disposition and MD5."""
    found = []
    filename = attachment.filename
    if CONTROL.search(filename):
        found.append(("filename", "has a line break or another control character"))
    if "/" in filename or "\\" in filename:
        found.append(("filename", "has a slash; a name without folders is allowed"))
    if len(filename.encode("utf-8", "replace")) > MAX_FILENAME:
        found.append(("filename", f"has more than {MAX_FILENAME} octets"))
    if not filename and not attachment.cid:
        found.append(("filename", "is missing"))
    if attachment.content_type:
        form = _CONTENT_TYPE.fullmatch(attachment.content_type.strip())
        if form is None:
            found.append(("content_type", f"{excerpt(attachment.content_type)} is not of the form type/subtype"))
        elif form[1].lower() in _COMPOSITE:
            wrong = "multipart/* and message/* cannot be sent as base64 (RFC 2045 6.4); use application/octet-stream"
            found.append(("content_type", wrong))
    if attachment.cid and _CID.fullmatch(attachment.cid) is None:
        found.append(("cid", "is not printable ASCII without blanks and angle brackets, of at most 250 characters"))
    if attachment.disposition.lower() not in ("", "attachment", "inline"):
        found.append(("disposition", "is neither attachment nor inline"))
    if attachment.content_md5 and _MD5.fullmatch(attachment.content_md5) is None:
        found.append(("content_md5", "is not an MD5 of 32 hexadecimal digits"))
    return found


def _wrong_with_source(attachment: Attachment, limits: SubmissionLimits) -> list[tuple[str, str]]:
    """Give what is wrong with where the octets come from."""
    sources = {
        "content": attachment.content,
        "url": attachment.url,
        "s3": attachment.s3,
        "storage_path": attachment.storage_path,
    }
    given = [name for name, source in sources.items() if source is not None]
    if not given:
        return [("", "has no content: one of content, url, s3 and storage_path is needed")]
    if len(given) > 1:
        return [("", f"has {' and '.join(given)}; one source is allowed")]
    if attachment.content is not None and len(attachment.content) > limits.attachment:
        return [("content", too_large(limits.attachment))]
    url = attachment.url
    if url is not None and not url.lower().startswith(("https://", "http://")):
        return [("url", f"{excerpt(url)} is not an https:// or http:// address")]
    if attachment.storage_path is not None and (not attachment.storage_path or "\0" in attachment.storage_path):
        return [("storage_path", "is not a path")]
    if attachment.s3 is not None and not (attachment.s3.bucket and attachment.s3.key):
        return [("s3", "bucket and key are needed")]
    return []
