import socket
import ssl
import stat
import threading
import time

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from smarthost.crypto.tls import ServerTls, TlsContexts, TlsFault, ensure_self_signed
from smarthost.mail.route import TlsLevel


def write_pair(folder, name="localhost"):
    """Write a new certificate and key, and give the authority to trust."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = authority.issue_cert(name, key_type=trustme.KeyType.ECDSA)
    (folder / "c.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    (folder / "k.pem").write_bytes(issued.private_key_pem.bytes())
    return authority


def shown_certificate(context, hostname=None):
    """Shake hands once and give the certificate that the server showed, as DER."""
    ours, theirs = socket.socketpair()

    def serve():
        with ours, context.wrap_socket(ours, server_side=True) as tunnel:
            tunnel.recv(1)

    server = threading.Thread(target=serve)
    server.start()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with theirs, client.wrap_socket(theirs, server_hostname=hostname) as tunnel:
        shown = tunnel.getpeercert(binary_form=True)
        tunnel.sendall(b"x")
    server.join()
    return shown


def serial(folder):
    """Give the serial number of the certificate on disk."""
    return x509.load_pem_x509_certificate((folder / "c.pem").read_bytes()).serial_number


def shown_serial(context, hostname=None):
    """Give the serial number of the certificate that is shown."""
    return x509.load_der_x509_certificate(shown_certificate(context, hostname)).serial_number


@pytest.mark.parametrize("hostname", ["localhost", None])
def test_a_changed_certificate_is_shown_from_the_next_handshake_on(tmp_path, hostname):
    """One context for life shows the new certificate after a reload, with and without a name from the client."""
    write_pair(tmp_path)
    served = ServerTls(tmp_path / "c.pem", tmp_path / "k.pem")
    context, first = served.context, serial(tmp_path)
    assert shown_serial(context, hostname) == first
    assert served.reload_if_changed() is False
    write_pair(tmp_path)
    assert shown_serial(context, hostname) == first
    assert served.reload_if_changed() is True
    assert served.context is context
    assert shown_serial(context, hostname) == serial(tmp_path) != first
    assert served.reload_if_changed() is False


def test_a_broken_pair_keeps_the_old_one_and_says_what_is_wrong(tmp_path):
    """Half-written, mismatched and missing files are told about each time, until they are right."""
    write_pair(tmp_path)
    served = ServerTls(tmp_path / "c.pem", tmp_path / "k.pem")
    first, whole = serial(tmp_path), (tmp_path / "c.pem").read_bytes()
    (tmp_path / "c.pem").write_bytes(whole[: len(whole) // 2])
    assert "c.pem" in str(served.reload_if_changed())
    other = tmp_path / "other"
    other.mkdir()
    write_pair(other)
    (tmp_path / "c.pem").write_bytes((other / "c.pem").read_bytes())
    assert "mismatch" in str(served.reload_if_changed())
    assert isinstance(served.reload_if_changed(), str)
    (tmp_path / "c.pem").unlink()
    assert isinstance(served.reload_if_changed(), str)
    assert shown_serial(served.context) == first
    write_pair(tmp_path)
    assert served.reload_if_changed() is True


def test_what_cannot_be_read_at_the_start_is_a_fault_with_the_file_named(tmp_path):
    """A missing file, a file that is no PEM, and an encrypted key are refused without asking anyone."""
    with pytest.raises(TlsFault, match=r"c\.pem"):
        ServerTls(tmp_path / "c.pem", tmp_path / "k.pem")
    (tmp_path / "c.pem").write_text("nothing")
    (tmp_path / "k.pem").write_text("nothing")
    with pytest.raises(TlsFault, match=r"c\.pem"):
        ServerTls(tmp_path / "c.pem", tmp_path / "k.pem")
    write_pair(tmp_path)
    key = serialization.load_pem_private_key((tmp_path / "k.pem").read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "k.pem").write_bytes(key.private_bytes(pem, pkcs8, locked))
    with pytest.raises(TlsFault, match="encrypted"):
        ServerTls(tmp_path / "c.pem", tmp_path / "k.pem")


def test_the_server_speaks_tls_1_2_at_least(tmp_path):
    """TLS 1.0 and 1.1 are gone (RFC 8996)."""
    write_pair(tmp_path)
    assert ServerTls(tmp_path / "c.pem", tmp_path / "k.pem").context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("hostname", ["relay.example.org", "[192.0.2.1]", "x" * 60 + "." + "y" * 60 + ".example"])
def test_a_certificate_of_our_own_is_made_once_and_names_the_host(tmp_path, hostname):
    """Self-signed, ECDSA P-256, ten years, the key for its owner alone; the second start takes the same."""
    folder = tmp_path / "data"
    certificate, key = ensure_self_signed(folder, hostname, time.time())
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = certificate.read_bytes()
    assert ensure_self_signed(folder, hostname, time.time()) == (certificate, key)
    assert certificate.read_bytes() == before
    made = x509.load_pem_x509_certificate(before)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [hostname.strip("[]")]
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days == 3651
    assert made.public_key().curve.name == "secp256r1"
    assert shown_certificate(ServerTls(certificate, key).context)


def test_a_key_without_its_certificate_is_made_anew(tmp_path):
    """A start that was cut off between the two files leaves nothing that stays broken."""
    certificate, _ = ensure_self_signed(tmp_path, "relay.example", time.time())
    certificate.unlink()
    ServerTls(*ensure_self_signed(tmp_path, "relay.example", time.time()))


def test_each_level_has_one_context_that_demands_what_it_says(tmp_path):
    """Verify demands a certificate for the name; may and encrypt take any and share a context; none has none."""
    contexts = TlsContexts()
    verify = contexts.for_level(TlsLevel.VERIFY)
    assert verify.verify_mode is ssl.CERT_REQUIRED
    assert verify.check_hostname
    assert contexts.for_level(TlsLevel.VERIFY) is verify
    may = contexts.for_level(TlsLevel.MAY)
    assert may.verify_mode is ssl.CERT_NONE
    assert contexts.for_level(TlsLevel.ENCRYPT, "any") is may
    assert may.minimum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(ValueError, match="none"):
        contexts.for_level(TlsLevel.NONE)


def test_a_trust_anchor_is_added_to_the_systems(tmp_path):
    """With a CA file the context trusts it as well; a file that cannot be read is a fault that names it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    contexts = TlsContexts()
    plain = contexts.for_level(TlsLevel.VERIFY)
    widened = contexts.for_level(TlsLevel.VERIFY, str(tmp_path / "ca.pem"))
    assert len(widened.get_ca_certs()) == len(plain.get_ca_certs()) + 1
    with pytest.raises(TlsFault, match=r"gone\.pem"):
        contexts.for_level(TlsLevel.VERIFY, str(tmp_path / "gone.pem"))


def test_a_client_certificate_is_shown_and_read_anew(tmp_path):
    """Contexts are shared by who shows the same; changed files count after `forget_changed`; broken ones are named."""
    files = str(tmp_path / "client.pem"), str(tmp_path / "client.key")
    write_files(trustme.CA().issue_cert("one.example"), *files)
    contexts = TlsContexts()
    bare, shown = contexts.for_level(TlsLevel.MAY), contexts.for_level(TlsLevel.MAY, client=files)
    assert shown is contexts.for_level(TlsLevel.ENCRYPT, client=files) and shown is not bare
    write_files(trustme.CA().issue_cert("second.example"), *files)
    assert contexts.for_level(TlsLevel.MAY, client=files) is shown
    contexts.forget_changed()
    assert contexts.for_level(TlsLevel.MAY, client=files) is not shown
    assert contexts.for_level(TlsLevel.MAY) is bare
    (tmp_path / "client.key").write_text("no key")
    contexts.forget_changed()
    with pytest.raises(TlsFault, match=r"client\.pem and .*client\.key"):
        contexts.for_level(TlsLevel.MAY, client=files)


def write_files(made, certificate, key):
    """Write a certificate and its key into two files."""
    made.cert_chain_pems[0].write_to_path(certificate)
    made.private_key_pem.write_to_path(key)


def test_the_common_name_is_no_proof() -> None:
    """A name counts where it stands in subjectAltName only (RFC 9525 2), as MTA-STS wants it, too (RFC 8461 4.1)."""
    assert not TlsContexts().for_level(TlsLevel.VERIFY).hostname_checks_common_name
