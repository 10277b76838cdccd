"""[http.attachments] and [http.large_attachments]: what is read, and what is said of mistakes."""

from pathlib import Path

import pytest

from smarthost.config import Config, ConfigError, load
from smarthost.policy.attachments import AttachmentTerms, LargeAction, S3Settings

MIB = 1024 * 1024


def read(folder: Path, text: str) -> Config:
    """Load a configuration of some lines."""
    file = folder / "smarthost.toml"
    file.write_text('hostname = "relay.example.org"\n' + text, encoding="utf-8")
    return load(file, {})


def test_every_key_has_its_place(tmp_path: Path) -> None:
    """All that can be said of attachments and of what a message may be is read; nothing is a default without a file."""
    assert read(tmp_path, "").attachments == AttachmentTerms()
    (tmp_path / "s3").write_text("s3cret\n")
    (tmp_path / "s3").chmod(0o600)
    config = read(
        tmp_path,
        f"""[http]
max_recipients = 50
max_subject = 200
max_metadata = "1KiB"
[http.attachments]
max_size = "10MiB"
max_total_size = "20MiB"
max_count = 5
timeout = "5s"
retries = 0
allow_private_urls = true
storage_roots = ["{tmp_path}"]
cache_size = "0"
cache_age = "1d"
cache_directory = "{tmp_path}/cache"
[http.attachments.s3]
endpoint = "http://127.0.0.1:9000/"
region = "eu-south-1"
access_key = "key"
secret_key_file = "{tmp_path}/s3"
buckets = ["letters"]
[http.large_attachments]
max_size_mb = 2.5
action = "rewrite"
lifetime = "7d"
public_url = "https://mail.example.org/files"
secret = "{"k" * 32}"
directory = "{tmp_path}/downloads"
""",
    )
    limits, terms = config.http_limits, config.attachments
    assert (limits.recipients, limits.subject, limits.metadata) == (50, 200, 1024)
    assert (limits.attachment, limits.attachments, limits.attachment_count) == (10 * MIB, 20 * MIB, 5)
    assert (terms.fetching.largest, terms.fetching.together) == (10 * MIB, 20 * MIB)
    assert (terms.fetching.url.timeout, terms.fetching.url.attempts) == (5.0, 1)
    assert terms.allow_private and terms.fetching.roots == (str(tmp_path),)
    assert (terms.cache.octets, terms.cache.age, terms.cache.folder) == (0, 86400.0, f"{tmp_path}/cache")
    assert terms.fetching.s3 == S3Settings(
        "http://127.0.0.1:9000", "eu-south-1", "key", "s3cret", path_style=True, buckets=("letters",)
    )
    large = terms.large
    assert (large.above, large.action, large.lifetime) == (int(2.5 * MIB), LargeAction.REWRITE, 7 * 86400.0)
    assert (large.public_url, large.folder) == ("https://mail.example.org/files", f"{tmp_path}/downloads")
    assert "s3cret" not in repr(config) and "k" * 32 not in repr(config)


def test_amazons_own_store_is_asked_as_amazon_wants_it(tmp_path: Path) -> None:
    """Without an endpoint the region names it, and the bucket stands in front of the host's name."""
    text = '[http.attachments.s3]\nregion = "eu-west-1"\naccess_key = "k"\nsecret_key = "s"'
    store = read(tmp_path, text).attachments.fetching.s3
    assert store == S3Settings("https://s3.eu-west-1.amazonaws.com", "eu-west-1", "k", "s")


def test_what_is_rejected_is_what_one_may_have(tmp_path: Path) -> None:
    """With action "reject" the smaller of both sizes holds."""
    terms = read(tmp_path, '[http.large_attachments]\nmax_size_mb = 2\naction = "reject"').attachments
    assert (terms.largest, terms.fetching.largest) == (2 * MIB, 25 * MIB)
    assert read(tmp_path, "[http.large_attachments]\nmax_size_mb = 2").attachments.largest == 25 * MIB


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[http]\nmax_recipients = 0", "http.max_recipients"),
        ("[http]\nmax_subject = 999", "http.max_subject"),
        ('[http.attachments]\nmax_size = "200MiB"', "http.attachments.max_total_size"),
        ("[http.attachments]\nretries = 11", "http.attachments.retries"),
        ("[http.attachments]\nretries = -1", "http.attachments.retries"),
        ("[http.attachments]\nstorage_roots = ['files']", "http.attachments.storage_roots[0]"),
        ("[http.attachments]\nstorage_roots = ['/none/there']", "http.attachments.storage_roots[0]"),
        ("[http.attachments]\ncache_directory = 'cache'", "http.attachments.cache_directory"),
        ("[http.attachments]\nmax_sise = 1", "http.attachments.max_sise"),
        ("[http.attachments.s3]\nsecret_key = 's3cret'", "http.attachments.s3.access_key"),
        ("[http.attachments.s3]\naccess_key = 'k'", "http.attachments.s3.secret_key"),
        (
            "[http.attachments.s3]\naccess_key='k'\nsecret_key='s3cret'\nendpoint='ftp://h'",
            "http.attachments.s3.endpoint",
        ),
        (
            "[http.attachments.s3]\naccess_key='k'\nsecret_key='s3cret'\nendpoint='http://h/p'",
            "http.attachments.s3.endpoint",
        ),
        ("[http.large_attachments]\nmax_size_mb = 'much'", "http.large_attachments.max_size_mb"),
        ("[http.large_attachments]\naction = 'drop'", "http.large_attachments.action"),
        ("[http.large_attachments]\naction = 'rewrite'", "http.large_attachments.public_url"),
        ("[http.large_attachments]\nsecret = 's3cret'", "http.large_attachments.secret"),
        ("[http.large_attachments]\npublic_url = 'https://u:p@h/'", "http.large_attachments.public_url"),
    ],
)
def test_mistakes_name_their_key(tmp_path: Path, text: str, key: str) -> None:
    """What cannot be meant is refused by file, line and key, and no secret is said."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert problem.key == key and problem.line and str(problem).startswith(str(tmp_path))
    assert "s3cret" not in str(problem)
