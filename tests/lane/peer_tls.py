# SPDX-License-Identifier: Apache-2.0
"""The TLS of the second source: docs/migration-protocol.md, chapter 1 and 7.1."""

import pathlib
import socket
import ssl
import struct

from peer_wire import REFUSE, TO_SOURCE, Channel


def client_context(directory):
    directory = pathlib.Path(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(directory / "ca-cert.pem")
    context.load_cert_chain(directory / "client-cert.pem", directory / "client-key.pem")
    return context


class TlsSocket:
    """
    As much of a socket as Channel needs.  The first bytes that come are looked at before the
    session has them: a destination without TLS answers with a REFUSE that is no TLS either.
    """

    def __init__(self, plain, context, host):
        self.plain = plain
        self.came, self.goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.came, self.goes, server_hostname=host)
        self.buffer = b""
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        if plain.recv(2, socket.MSG_PEEK) == struct.pack("<H", REFUSE):
            Channel(plain, TO_SOURCE).receive()
        self._retry(self.session.do_handshake)
        self._flush()

    def _flush(self):
        self.plain.sendall(self.goes.read())

    def _retry(self, step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.plain.recv(65536)
                if not data:
                    self.came.write_eof()
                self.came.write(data)

    def pending(self):
        return self.session.pending() or self.came.pending

    def fileno(self):
        return self.plain.fileno()

    def settimeout(self, seconds):
        self.plain.settimeout(seconds)

    def recv(self, length):
        return self._retry(lambda: self.session.read(length))

    def recv_into(self, view):
        return self._retry(lambda: self.session.read(len(view), view))

    def sendall(self, data):
        view = memoryview(data)
        while view:
            view = view[self.session.write(view[:1 << 18]):]
            self._flush()

    def close(self):
        self.plain.close()
