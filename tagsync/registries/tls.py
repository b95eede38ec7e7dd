"""TLS settings of a registry: which certificates it trusts, and which one tagsync shows."""

import ssl
from pathlib import Path
from typing import Final, NamedTuple

import httpx

from tagsync.errors import ConfigError


class Trust(NamedTuple):
    """The files with certificates for the connections to one registry, all in PEM format.

    Attributes:
        ca_file: Certificates to trust in addition to the default ones.
        client_cert_file: The certificate that tagsync shows to servers, followed by its chain. None
            shows no certificate.
        client_key_file: The private key of that certificate. None if ``client_cert_file`` contains
            it.
    """

    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return the settings for TLS. Certificates and host names are always verified.

        Raises:
            ConfigError: If a file cannot be read, or does not contain what its key names.
        """
        context = httpx.create_ssl_context()
        if self.ca_file is not None:
            _load_trusted(context, self.ca_file)
        if self.client_cert_file is not None:
            _load_own(context, self.client_cert_file, self.client_key_file)
        return context


DEFAULT_TRUST: Final = Trust()
"""The default certificates are trusted, and tagsync shows none."""


def _load_trusted(context: ssl.SSLContext, ca_file: Path) -> None:
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"the ca_file {ca_file} contains no certificate in PEM format") from error
    except OSError as error:
        raise ConfigError(f"the ca_file {ca_file} cannot be read: {error.strerror}") from error


def _load_own(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    # ssl names no file in its errors, so both are opened here first.
    for key, path in (("client_cert_file", cert_file), ("client_key_file", key_file)):
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"the {key} {path} cannot be read: {error.strerror}") from error
    try:
        # Without a password function, OpenSSL would ask for the password of a key on the terminal.
        context.load_cert_chain(cert_file, key_file, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"the client_cert_file {cert_file} cannot be used with the key in"
            f" {key_file or cert_file}: both must be in PEM format, belong together, and have no"
            " password"
        ) from error
