"""The same certificates are good on every Python."""

import ssl

import pytest

from daemon.tls import trusting

STRICT = ssl.VerifyFlags.VERIFY_X509_STRICT


@pytest.fixture(autouse=True)
def strict_python(monkeypatch):
    """`ssl` as it is from Python 3.13 on."""
    lenient = ssl.create_default_context

    def create(*args, **kwargs):
        context = lenient(*args, **kwargs)
        context.verify_flags |= STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", create)


def test_a_named_authority_is_taken_as_it_was_before_python_3_13(certificates):
    context = trusting(certificates.ca)
    assert not context.verify_flags & STRICT
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert [authority["issuer"] for authority in context.get_ca_certs()] == [((("commonName", "test authority"),),)]


def test_for_the_systems_authorities_pythons_choice_stands():
    assert trusting(None).verify_flags & STRICT


def test_a_file_without_a_certificate_says_so(tmp_path, certificates):
    with pytest.raises(OSError, match="No such file"):
        trusting(tmp_path / "none.pem")
    with pytest.raises(ssl.SSLError):
        trusting(certificates.server_key)
