"""TLS for the service's TCP address. There is no TCP without it: tokens travel with each call."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.sandbox.grpc_quiet import grpc

MAX_PEM = 1 << 20  # bytes of a file: a chain of certificates has some ten thousand


def listen(server: grpc.aio.Server, address: str, certificate: str | Path, key: str | Path) -> int:
    """Has ``server``, which is not started yet, listen at ``address`` with TLS.

    Args:
        server: the service's.
        address: ``host:port``; port 0 is any free one.
        certificate: PEM file of the server's certificate, and those that lead from it to the root.
        key: PEM file of its private key, which only its owner and perhaps a group may read.

    Returns:
        The port.

    Raises:
        ConfigError: there is no certificate or key, something is wrong with them, or the address cannot be had.
    """
    if not certificate or not key:
        raise ConfigError(f"to listen at {address} the service needs a certificate and a key: TCP is with TLS only")
    if ":" not in address or address.startswith(("unix", "vsock")):
        raise ConfigError(f"{address!r} is no address to listen at with TLS; write host:port")
    credentials = server_credentials(Path(certificate), Path(key))
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError(f"the service cannot listen at {address}: {error}") from None


def server_credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """What a server shows.

    Raises:
        ConfigError: a file cannot be read or is no PEM, others may read the key, or the two do not belong together.
    """
    private = _read(key, is_private=True)
    chain = _read(certificate)
    _check_pair(certificate, key)
    return grpc.ssl_server_credentials([(private, chain)])


def _read(path: Path, is_private: bool = False) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is not waited for
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path} is no file")
        if is_private and mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise ConfigError(f"the key {path} is open to others (mode {stat.S_IMODE(mode):04o}); chmod 600 it")
        return os.read(file, MAX_PEM)
    finally:
        os.close(file)


def _check_pair(certificate: Path, key: Path) -> None:
    """gRPC would find out at the first connection, and tell nobody."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")  # never asks for one
    except (OSError, ValueError) as error:  # ssl's own is an OSError
        raise ConfigError(f"certificate {certificate} and key {key} cannot be used together: {error}") from None
