"""Certificates for tests of TLS, made by `openssl`; hides its commands. All are of today and tomorrow, and for 127.0.0.1 only."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
_LEAF = "subjectAltName=IP:127.0.0.1\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"


class Certificate(NamedTuple):
    """PEM files; the key is encrypted with *password*."""

    certificate: Path
    key: Path
    password: str


class Authority:
    """A certificate authority with its files in *folder*, which is made. A test that has one takes the fixture `openssl`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._key = folder / "ca.key"
        self.certificate = folder / "ca.pem"
        extension = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        files = ("-keyout", self._key, "-out", self.certificate)
        _openssl("req", "-x509", "-nodes", *_KEY, "-subj", f"/CN={folder.name}", "-days", "2", *extension, *files)

    def issue(self, name: str, password: str) -> Certificate:
        """A certificate for *name*, good for servers and clients."""
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key", password)
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(_LEAF)
        subject = ("-subj", f"/CN={name}", "-passout", f"pass:{password}")
        _openssl("req", "-new", *_KEY, *subject, "-keyout", made.key, "-out", request)
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-days", "2", "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, *signer, "-out", made.certificate)
        return made

    def keystore(self, of: Certificate) -> Path:
        """The certificate and its key as PKCS #12, which Java reads, with the same password."""
        store = of.certificate.with_suffix(".p12")
        passwords = ("-passin", f"pass:{of.password}", "-passout", f"pass:{of.password}")
        files = ("-inkey", of.key, "-in", of.certificate, "-certfile", self.certificate, "-out", store)
        _openssl("pkcs12", "-export", *files, *passwords)
        return store


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
