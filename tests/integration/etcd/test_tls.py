"""TLS to etcd: who it is gets checked, name and all, and it may check who we are."""

import shutil
import subprocess
from pathlib import Path

import pytest

from protocols.errors import InvalidError, UnavailableError
from runtime.etcd import EtcdSettings
from runtime.etcd.client import EtcdClient
from tests.support.etcd import Etcd

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="apt-get install openssl"),
]


class Authority:
    """A CA of a test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.cert = str(folder / "ca.pem")
        self._run("req", "-x509", *_NEW_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-subj=/CN=ca")

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)

    def issue(self, name: str, alternative: str) -> tuple[str, str]:
        """Give the paths of a certificate and its key."""
        self._run("req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", "r.csr", f"-subj=/CN={name}")
        (self._folder / "ext").write_text(
            f"subjectAltName={alternative}\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext")
        self._run("x509", "-req", "-in", "r.csr", "-out", f"{name}.pem", "-days", "2", *signer)
        return str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key")


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


async def answer(etcd: Etcd, **more) -> str:
    async with EtcdClient(EtcdSettings(endpoints=(etcd.endpoint,), **more)) as client:
        return await client.learn_version()


async def test_a_server_of_the_right_name_and_ca_is_spoken_to(authority):
    cert, key = authority.issue("server", "IP:127.0.0.1")
    with Etcd(f"--cert-file={cert}", f"--key-file={key}", scheme="https") as etcd:
        assert (await answer(etcd, ca=authority.cert)).startswith("3.")
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await answer(etcd)


async def test_a_server_of_another_name_is_refused(authority):
    cert, key = authority.issue("server", "DNS:elsewhere.example")
    options = (f"--cert-file={cert}", f"--key-file={key}")
    mismatch = pytest.raises(UnavailableError, match="IP address mismatch")
    with Etcd(*options, scheme="https") as etcd, mismatch:
        await answer(etcd, ca=authority.cert)


async def test_a_server_that_asks_who_we_are_is_shown_our_certificate(authority):
    cert, key = authority.issue("server", "IP:127.0.0.1")
    ours, our_key = authority.issue("node", "DNS:node.example")
    options = (f"--cert-file={cert}", f"--key-file={key}", f"--trusted-ca-file={authority.cert}")
    with Etcd(*options, "--client-cert-auth", scheme="https") as etcd:
        version = await answer(etcd, ca=authority.cert, cert=ours, key=our_key)
        assert version.startswith("3.")
        with pytest.raises(UnavailableError):
            await answer(etcd, ca=authority.cert)


async def test_files_that_are_no_certificates_are_named_before_anything_is_asked(tmp_path):
    empty = tmp_path / "empty.pem"
    empty.touch()
    for field, more in {"ca": {"ca": str(empty)}, "cert": {"cert": str(tmp_path / "no")}}.items():
        with pytest.raises(InvalidError) as wrong:
            EtcdClient(EtcdSettings(endpoints=("https://127.0.0.1:1",), **more))
        assert wrong.value.problems[0].path == ("etcd", field)
