"""Certificates are checked for the name in the URL, although the connection is made to an address."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tools.web.rules import FetchRules
from orchestrator.tools.web.safe_fetch import fetch
from tests.unit.web_names import besides_system, resolving
from tests.unit.web_server import answer, serving


def run(test: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await test

    return asyncio.run(bounded())


class Authority:
    """Signs certificates, and gives contexts that trust it."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed("authority", self._key, None)
        self.seen: list[str | None] = []

    def _signed(self, name: str, key: Any, names: Any) -> Any:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import NameOID

        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        made = made.not_valid_after(now + datetime.timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        if names is not None:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self._key, hashes.SHA256())

    def server(self, *names: str) -> ssl.SSLContext:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        kinds = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        certificate = self._signed(names[0], key, kinds)
        file = self._folder / "server.pem"
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, *plain) + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.sni_callback = lambda connection, name, _: self.seen.append(name)
        return context

    def trusted(self) -> ssl.SSLContext:
        from cryptography.hazmat.primitives import serialization

        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls_rules(tls: ssl.SSLContext | None) -> FetchRules:
    return FetchRules(
        allowed_hosts=frozenset({"tls.test", "127.0.0.1"}),
        tls=tls,
        resolve=besides_system(resolving(tls_test=["127.0.0.1"])),
    )


@pytest.mark.parametrize(("host", "seen"), [("tls.test", "tls.test"), ("127.0.0.1", None)])
def test_the_certificate_is_checked_for_the_name_in_the_url(authority: Authority, host: str, seen: str | None) -> None:
    async def test() -> None:
        async with serving({"/": answer("private")}, authority.server("tls.test", "127.0.0.1")) as server:
            page = await fetch(server.url(host=host), tls_rules(authority.trusted()))
            assert page.text == "private"
            assert authority.seen == [seen]
            assert server.requests[0].headers["host"] == f"{host}:{server.port}"

    run(test())


@pytest.mark.parametrize("trusted", [True, False])
def test_another_certificate_is_refused(authority: Authority, trusted: bool) -> None:
    names = ["other.test", "127.0.0.1"] if trusted else ["tls.test"]  # that of the address is not that of the name

    async def test() -> None:
        async with serving({"/": answer("private")}, authority.server(*names)) as server:
            with pytest.raises(ConnectionError, match=r"tls.test cannot be reached, or has no valid certificate"):
                await fetch(server.url(host="tls.test"), tls_rules(authority.trusted() if trusted else None))
            assert not server.requests

    run(test())
