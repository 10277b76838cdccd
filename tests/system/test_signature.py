"""DKIM end to end: what arrives at the sink is verified by Mail::DKIM, an implementation that is not ours."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from outside import need, succeeds
from relay_process import Relay
from sending import submit
from sink_process import Sink

# Mail::DKIM asks DNS for the key; here it is handed the record instead.
VERIFIER = r"""
use Mail::DKIM::Verifier;
use Mail::DKIM::PublicKey;
no warnings 'redefine';
my $record = shift @ARGV;
*Mail::DKIM::PublicKey::fetch = sub { return Mail::DKIM::PublicKey->parse($record) };
*Mail::DKIM::PublicKey::fetch_async = sub {
  my ($class, %more) = @_;
  my $key = Mail::DKIM::PublicKey->parse($record);
  return sub { $more{Callbacks}{Success} ? $more{Callbacks}{Success}->($key) : $key };
};
my $dkim = Mail::DKIM::Verifier->new();
while (<STDIN>) { s/\r?\n$//; $dkim->PRINT("$_\015\012"); }
$dkim->CLOSE;
print $dkim->result_detail, "\n";
"""


@pytest.mark.parametrize("size", [200, 600_000])
def test_mail_dkim_verifies_what_arrives(
    make_relay: Callable[..., Relay], sink: Sink, tmp_path: Path, size: int
) -> None:
    """A small and a large message pass Mail::DKIM's verifier with our RSA signature."""
    need(succeeds("perl", "-MMail::DKIM::Verifier", "-e", "1"), "perl module Mail::DKIM (libmail-dkim-perl)")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    key_file.chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = "v=DKIM1; k=rsa; p=" + "".join(public.decode().splitlines()[1:-1])
    relay = make_relay(dkim=[{"domain": "example.org", "selector": "s1", "key": str(key_file)}])
    relay.start()
    submit(relay.port, "signed", "250@example.com", size=size)
    message = sink.wait_for("signed", 20)
    assert "d=example.org" in message["DKIM-Signature"]
    [octets] = sink.octets()
    done = subprocess.run(["perl", "-e", VERIFIER, record], input=octets, capture_output=True, timeout=60, check=False)
    assert done.stdout.decode().startswith("pass"), done
