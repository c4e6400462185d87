"""Certificates for scenarios, made with openssl."""

import os
import re
import subprocess

from harness import PATIENCE_SECONDS


def openssl(*words, **options):
    done = subprocess.run(["openssl", *words], capture_output=True, timeout=PATIENCE_SECONDS, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def secured(text, more=""):
    """The same configuration of a proxy, whose listener opens TLS; with these settings of it besides."""
    return text.replace('name = "web"', f'name = "web"\ntls = true{more}', 1)


class Authority:
    """An authority that signs certificates, in a directory."""

    def __init__(self, directory):
        self.dir = directory
        self.ca = self.path("ca.pem")
        self.new_key("ca")
        openssl("req", "-x509", "-new", "-key", self.path("ca.key"), "-subj", "/CN=authority", "-days", "2", "-out", self.ca)

    def path(self, name):
        return os.path.join(self.dir, name)

    def new_key(self, name):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.path(f"{name}.key"))

    def sign(self, name, hosts):
        """A certificate for these hosts; its serial number. A key that is there already is used again."""
        if not os.path.exists(self.path(f"{name}.key")):
            self.new_key(name)
        request = openssl("req", "-new", "-key", self.path(f"{name}.key"), "-subj", f"/CN={name}")
        with open(self.path(f"{name}.ext"), "w") as file:
            file.write("subjectAltName = " + ", ".join(hosts))
        serial = str(int.from_bytes(os.urandom(6), "big"))
        new = self.path(f"{name}.new")
        openssl(
            "x509", "-req", "-CA", self.ca, "-CAkey", self.path("ca.key"), "-days", "2", "-set_serial", serial,
            "-extfile", self.path(f"{name}.ext"), "-out", new, input=request.encode(),
        )
        os.replace(new, self.path(f"{name}.pem"))
        return int(serial)

    def setting(self, name):
        return f'[[proxy.certificate]]\ncert = "{self.path(name)}.pem"\nkey = "{self.path(name)}.key"\n'

    def curl(self, port, host, *words):
        """What curl is answered by the port under this name: its exit code and the body."""
        command = ["curl", "-sS", "--cacert", self.ca, "--resolve", f"{host}:{port}:127.0.0.1", f"https://{host}:{port}/x", *words]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE_SECONDS)
        return done.returncode, done.stdout.decode()

    def shown(self, port, host):
        """The serial number of the certificate that a client is shown."""
        text = openssl("s_client", "-connect", f"127.0.0.1:{port}", "-servername", host, stdin=subprocess.DEVNULL)
        pem = re.search("-----BEGIN.*END CERTIFICATE-----", text, re.DOTALL).group(0)
        return int(openssl("x509", "-noout", "-serial", input=pem.encode()).strip().removeprefix("serial="), 16)
