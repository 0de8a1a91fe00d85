# SPDX-License-Identifier: Apache-2.0
"""TLS directories for migrations: ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem,
client-key.pem, made by the openssl program."""

import pathlib
import subprocess

from lane_base import need_tool


def _openssl(directory, *args):
    subprocess.run([need_tool("openssl"), *args], cwd=directory, check=True, capture_output=True)


class Authority:
    """A certificate authority with a directory of its own."""

    def __init__(self, directory, name="Lane CA"):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        _openssl(self.dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-days", "2",
                 "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def tls_dir(self, directory, names=("IP:127.0.0.1", "DNS:localhost"), days=1):
        """A tls_dir whose certificates carry these subject alternative names.  Return: its path."""
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True)
        (directory / "ca-cert.pem").write_bytes((self.dir / "ca-cert.pem").read_bytes())
        for role in ("server", "client"):
            _openssl(directory, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-keyout", f"{role}-key.pem", "-out", f"{role}.csr",
                     "-subj", f"/CN=chrysalis {role}")
            (directory / f"{role}.ext").write_text(
                f"subjectAltName={','.join(names)}\nextendedKeyUsage={role}Auth\n"
                "basicConstraints=CA:FALSE\n")
            _openssl(directory, "x509", "-req", "-in", f"{role}.csr", "-CA",
                     self.dir / "ca-cert.pem", "-CAkey", self.dir / "ca-key.pem",
                     "-CAcreateserial", "-days", str(days), "-extfile", f"{role}.ext",
                     "-out", f"{role}-cert.pem")
            (directory / f"{role}.csr").unlink()
            (directory / f"{role}.ext").unlink()
        return directory
