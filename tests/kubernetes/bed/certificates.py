"""The certificates of a bed, and the kubeconfigs that hold them."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .places import Place

#: How long a bed may live.
LIFE = datetime.timedelta(days=7)
#: Who has a kubeconfig: its file, user and groups. `kuberay` has the rights of its own Role only.
USERS = {
    "admin": ("admin", ("system:masters",)),
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "proxy": ("system:kube-proxy", ()),
    "kubelet": ("system:node:real", ("system:nodes",)),
    "kwok": ("kwok", ("system:masters",)),
    "coredns": ("coredns", ("system:masters",)),
    "kuberay": ("kuberay", ()),
}
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def write_secret(path: Path, text: str | bytes) -> None:
    """Write a file that is nobody else's to read, from its first moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def kubeconfig(api: str, authority: bytes, user: dict[str, str], namespace: str = "default") -> str:
    """Give the text of a kubeconfig.

    Parameters
    ----------
    api : str
        The address of the API server.
    authority : bytes
        The certificate that its own is signed with, PEM.
    user : dict
        The credential, in the words of a kubeconfig: a token, or a certificate and its key.
    namespace : str
        What is meant when none is named.
    """
    cluster = {"server": api, "certificate-authority-data": base64.b64encode(authority).decode()}
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bed", "cluster": cluster}],
        "users": [{"name": "bed", "user": user}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed", "namespace": namespace}}],
        "current-context": "bed",
    }
    return json.dumps(content, indent=1)


@dataclass(frozen=True)
class Authority:
    """Signs the certificates of one bed."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls) -> Authority:
        """Make one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("bed", ())
        made = _certificate(name, name, key.public_key(), authority=True).sign(key, hashes.SHA256())
        return cls(key, made)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, user: str, groups: Sequence[str] = (), names: Sequence[str] = ()) -> tuple[bytes, bytes]:
        """Make a certificate, and give it and its key.

        Parameters
        ----------
        user : str
            For whom.
        groups : sequence of str
            Of which groups the user is.
        names : sequence of str
            Host names and addresses, if it is for a server.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(_name(user, groups), self.certificate.subject, key.public_key())
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), False)
        made = builder.sign(self.key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM), _private(key)


def write_all(place: Place) -> None:
    """Write all certificates, keys and kubeconfigs of a bed into its folder ``pki``.

    Parameters
    ----------
    place : Place
        The bed.
    """
    folder = place.folder / "pki"
    folder.mkdir(mode=0o700)
    authority = Authority.new()
    write_secret(folder / "ca.crt", authority.pem)
    write_secret(folder / "ca.key", _private(authority.key))
    tokens = rsa.generate_private_key(65537, 2048)
    write_secret(folder / "tokens.key", _private(tokens))
    local = ["localhost", "127.0.0.1", place.node]
    service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", str(place.services[1])]
    servers = {"apiserver": [*local, *service], "kubelet": [*local, "real"]}
    for name, names in servers.items():
        _write_pair(folder, f"{name}-server", authority.sign(name, names=names))
    _write_pair(folder, "apiserver-client", authority.sign("apiserver", ["system:masters"]))
    for name, (user, groups) in USERS.items():
        certificate, key = authority.sign(user, groups)
        credential = {"client-certificate-data": certificate, "client-key-data": key}
        encoded = {field: base64.b64encode(value).decode() for field, value in credential.items()}
        target = place.kubeconfig if name == "admin" else folder / f"{name}.kubeconfig"
        write_secret(target, kubeconfig(place.api, authority.pem, encoded))
        if name == "admin":
            _write_pair(folder, name, (certificate, key))


def _write_pair(folder: Path, name: str, pair: tuple[bytes, bytes]) -> None:
    for suffix, content in zip(("crt", "key"), pair, strict=True):
        write_secret(folder / f"{name}.{suffix}", content)


def _private(key: _Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, authority: bool = False
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(authority, None), True)
    )
