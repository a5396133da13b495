"""Takes names; gives certificates, keys and tokens: good ones, and forgeries of every kind.

    callers = Authority("callers", directory)
    bot = callers.issue("bot", uri="spiffe://prod.example/ns/support/sa/bot")   # bot.cert, bot.key
    forged = self_signed("forged", directory, uri=bot_uri)

    issuer = Issuer("https://issuer.prod.example")
    token = issuer.mint("support-bot")
    expired = issuer.mint("support-bot", expires_in=-60)
"""

import base64
import dataclasses
import datetime
import hmac
import ipaddress
import json
import pathlib
import time

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUDIENCE = "llm"


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Two PEM files."""

    cert: pathlib.Path
    key: pathlib.Path


class Authority:
    """A certificate authority of its own. `ca` is its certificate's file."""

    def __init__(self, name: str, directory: pathlib.Path):
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(f"{name} authority")
        self._certificate = _sign(self._name, self._key, self._name, self._key, ca=True)
        self.ca = directory / f"{name}-ca.pem"
        self.ca.write_bytes(_pem(self._certificate))

    def issue(
        self, stem: str, *, uri: str | None = None, dns: tuple[str, ...] = (), days: float = 1
    ) -> Certificate:
        """A certificate for both ends of TLS, in `stem.pem` and `stem.key`.

        `uri` is a SPIFFE ID; a certificate with `dns` is also good for 127.0.0.1. With negative
        `days` it expired so many days ago.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(_subject(stem), key, self._name, self._key, uri, dns, days)
        return _write(self._directory, stem, certificate, key)


def self_signed(stem: str, directory: pathlib.Path, *, uri: str) -> Certificate:
    """Nobody's word but its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(stem)
    return _write(directory, stem, _sign(name, key, name, key, uri), key)


class Issuer:
    """An issuer of JWTs, with one ES256 key. `minted` is every token that it ever signed."""

    def __init__(self, url: str = "https://issuer.prod.example", key_id: str = "key-1"):
        self.url = url
        self.minted: list[str] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_id = key_id

    def jwks(self) -> str:
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        return json.dumps({"keys": [key | {"kid": self._key_id, "alg": "ES256", "use": "sig"}]})

    def mint(self, subject: str | None, expires_in: float | None = 600, **claims) -> str:
        """A token. `claims` replace or, where `None`, remove the usual ones (`aud`, `iss`, ...);
        `expires_in=None` leaves `exp` out."""
        now = int(time.time())
        usual = {"iss": self.url, "sub": subject, "aud": AUDIENCE, "iat": now}
        if expires_in is not None:
            usual["exp"] = now + int(expires_in)
        payload = {name: value for name, value in (usual | claims).items() if value is not None}
        token = jwt.encode(payload, self._key, "ES256", headers={"kid": self._key_id})
        self.minted.append(token)
        return token

    def unsigned(self, subject: str) -> str:
        """`alg: none`."""
        header, payload, _ = self.mint(subject).split(".")
        header = _base64url(json.dumps({"alg": "none", "typ": "JWT"}).encode())
        return f"{header}.{payload}."

    def signed_by_another(self, subject: str) -> str:
        """This issuer's name and key id, another's key."""
        return Issuer(self.url, self._key_id).mint(subject)

    def signed_with_public_key(self, subject: str) -> str:
        """HS256 with the public key as the secret: the algorithm confusion attack."""
        public = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        header = _base64url(json.dumps({"alg": "HS256", "kid": self._key_id}).encode())
        signed = f"{header}.{self.mint(subject).split('.')[1]}"
        # By hand: the library is too careful to do it.
        signature = hmac.digest(public, signed.encode(), "sha256")
        return f"{signed}.{_base64url(signature)}"

    def altered(self, subject: str, to: str) -> str:
        """A good token whose subject was changed after signing."""
        header, _, signature = self.mint(subject).split(".")
        claims = jwt.decode(self.mint(to), options={"verify_signature": False})
        return f"{header}.{_base64url(json.dumps(claims).encode())}.{signature}"


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _sign(name, key, issuer, issuer_key, uri=None, dns=(), days=1.0, ca=False):
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - datetime.timedelta(hours=1))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    names = [x509.UniformResourceIdentifier(uri)] if uri else []
    names += [x509.DNSName(host) for host in dns]
    names += [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if dns else []
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if not ca:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
        + ["encipher_only", "decipher_only"],
        False,
    )
    usage |= {"digital_signature": True, "key_cert_sign": ca, "crl_sign": ca}
    builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    ).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    return builder.sign(issuer_key, hashes.SHA256())


def _write(directory: pathlib.Path, stem: str, certificate, key) -> Certificate:
    directory.mkdir(parents=True, exist_ok=True)
    files = Certificate(directory / f"{stem}.pem", directory / f"{stem}.key")
    files.cert.write_bytes(_pem(certificate))
    files.key.touch(mode=0o600)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def _pem(certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
