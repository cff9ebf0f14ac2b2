"""The address to scrape: whose it is, who may scrape, and that nobody can wear it down."""

from __future__ import annotations

import base64
import errno
import io
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from metrics_rig import fetch, governed, infer, value, values

from governor import EnergyGovernor, InputError, MetricsConfig
from governor.cli.main import main
from governor.devices.emulated import EmulatedBoard
from governor.exporter import Address
from governor.exporter.auth import Passwords, hashed
from governor.exporter.server import MOST_THREADS

ANYWHERE = "localhost:0"


def port_of(gov: EnergyGovernor) -> int:
    port = urlsplit(gov.metrics_url or "").port
    assert port is not None
    return port


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another program listens; the one after it may be free."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


# The address ------------------------------------------------------------------------------


def test_true_means_localhost_9477() -> None:
    assert MetricsConfig.parse(True) == MetricsConfig(listen="localhost:9477")


def test_without_metrics_nothing_listens() -> None:
    with governed() as (gov, _):
        assert gov.metrics_url is None


def test_a_scrape_says_what_the_governor_knows() -> None:
    with governed(ANYWHERE) as (gov, board):
        infer(gov, board, 30)
        text = fetch(gov.metrics_url)
        assert value(text, "governor_inferences_total") == gov.status().inferences > 0


def test_it_listens_at_one_address_only_and_elsewhere_only_when_asked() -> None:
    # all of 127.0.0.0/8 is this machine; a server for everybody answers at every one of them
    for listen, reached in ((ANYWHERE, False), ("0.0.0.0:0", True)):
        with governed(listen) as (gov, _), socket.socket() as other:
            assert (other.connect_ex(("127.0.0.2", port_of(gov))) == 0) is reached


def test_after_the_block_nothing_listens_and_the_port_is_free_at_once() -> None:
    with governed(ANYWHERE) as (gov, _):
        port = port_of(gov)
        fetch(gov.metrics_url)
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.1", port)) != 0
    with governed(f"localhost:{port}") as (gov, _):
        assert port_of(gov) == port


def test_a_taken_port_is_one_clear_error_before_anything_is_touched(taken: int) -> None:
    board = EmulatedBoard("nano", "yolov8n-trt")
    with pytest.raises(InputError, match=rf"localhost:{taken} is taken.*localhost:{taken}\+"):
        EnergyGovernor("50ms", device=board, metrics=f"localhost:{taken}").__enter__()
    with governed(ANYWHERE, board=board) as (gov, _):
        infer(gov, board, 1)


def test_the_next_free_port_is_taken_when_asked_for(taken: int) -> None:
    with governed(f"localhost:{taken}+") as (gov, _):
        assert taken < port_of(gov) < taken + 100
        assert "governor_phase" in fetch(gov.metrics_url)


@pytest.mark.parametrize(
    "address",
    ["", " ", "localhost", ":9477", "localhost:", "localhost:99999", "a b:1", "host:1:2", "1.5"],
)
def test_what_is_no_address_is_said_in_one_line(address: str) -> None:
    with pytest.raises(InputError, match="is no address to listen at; write HOST:PORT"):
        Address.parse(address)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9477", Address("localhost", 9477)),
        ("0.0.0.0:80+", Address("0.0.0.0", 80, next_free=True)),
        ("[::1]:9477", Address("::1", 9477)),
    ],
)
def test_addresses_are_read_as_people_write_them(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"certificate": Path("x.pem")}, "both a certificate and its key"),
        ({"listen": "", "passwords": Path("x")}, "without an address"),
        ({"push": "gateway:9091"}, "is no URL"),
        ({"otlp": "http://[::1"}, "is no URL"),
        ({"textfile": Path("governor.txt")}, "end in .prom"),
        ({"interval_s": 0.0}, "interval_s must be"),
        ({"interval_s": float("nan")}, "interval_s must be"),
    ],
)
def test_a_wrong_setting_is_said_in_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MetricsConfig(**wrong)  # type: ignore[arg-type]


def test_anything_but_an_address_or_a_config_is_refused() -> None:
    with pytest.raises(InputError, match="metrics must be True, an address"):
        MetricsConfig.parse(9477)  # type: ignore[arg-type]


# More than one ----------------------------------------------------------------------------


def test_two_governors_of_a_process_share_an_address_until_the_last_has_left() -> None:
    with governed(ANYWHERE, name="detector") as (one, _):
        with governed(ANYWHERE, name="tracker") as (other, _):
            assert one.metrics_url == other.metrics_url
            text = fetch(one.metrics_url)
            assert value(text, "governor_frozen", governor="detector") == 0
            assert value(text, "governor_frozen", governor="tracker") == 0
        text = fetch(one.metrics_url)
        assert 'governor="detector"' in text
        assert 'governor="tracker"' not in text


def test_a_second_governor_without_a_name_of_its_own_is_told_and_leaves_the_first() -> None:
    with governed(ANYWHERE) as (gov, _):
        with pytest.raises(InputError, match="give each a name"), governed(ANYWHERE):
            pass
        assert "governor_phase" in fetch(gov.metrics_url)


WORKER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from metrics_rig import governed, infer
first = sys.argv[2]
def work(name):
    with governed(f"localhost:{first}+", name=name) as (gov, board):
        infer(gov, board, 20)
        print(name, gov.metrics_url, flush=True)
        sys.stdin.read()
with governed(f"localhost:{first}+", name="parent") as (gov, board):
    if os.fork() == 0:
        work("child")
        os._exit(0)
    print("parent", gov.metrics_url, flush=True)
    sys.stdin.read()
os.wait()
"""


def test_each_process_of_an_application_that_forks_has_its_own_port(taken: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WORKER, str(Path(__file__).parent), str(taken)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        urls = dict(process.stdout.readline().split() for _ in range(2))
        assert len(set(urls.values())) == 2
        for name, url in urls.items():
            named = {dict(labels).get("governor") for _, labels in values(fetch(url))}
            assert named == {name}
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_forked_child_does_not_keep_the_parent_s_address() -> None:
    with governed(ANYWHERE) as (gov, _):
        port = port_of(gov)
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with socket.create_server(("127.0.0.1", port)):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# Who may ----------------------------------------------------------------------------------


def basic(name: str, password: str) -> dict[str, str]:
    token = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


def test_only_those_in_the_file_of_passwords_may_scrape(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text(f"# who may\n{hashed('prometheus', 'sesame')}\n", encoding="utf-8")
    assert "sesame" not in file.read_text(encoding="utf-8")
    with governed(MetricsConfig(listen=ANYWHERE, passwords=file)) as (gov, _):
        for headers in ({}, basic("prometheus", "Sesame"), basic("root", "sesame")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                fetch(gov.metrics_url, **headers)
            refused.value.close()
            assert refused.value.code == 401
            assert refused.value.headers["WWW-Authenticate"] == 'Basic realm="governor"'
        for _ in range(2):
            assert "governor_phase" in fetch(gov.metrics_url, **basic("prometheus", "sesame"))


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!", "Bearer abc", "Basic /w==", "\x00"])
def test_an_odd_authorization_header_is_no_pass(header: str) -> None:
    name, _, rest = hashed("prometheus", "sesame").partition(":scrypt$")
    salt, _, digest = rest.partition("$")
    allowed = Passwords({name: (bytes.fromhex(salt), bytes.fromhex(digest))})
    assert not allowed.allows(header)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prometheus:sesame\n", "line 1: expected NAME:scrypt"),
        ("\n", "holds no password"),
        (b"\xff\xfe", "passwords: "),
        (None, "passwords: "),
    ],
)
def test_a_wrong_file_of_passwords_is_said_in_one_line(
    content: str | bytes | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "passwords"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    config = MetricsConfig(listen=ANYWHERE, passwords=file)
    with pytest.raises(InputError, match=message), governed(config):
        pass


def test_governor_metrics_makes_a_line_of_the_file_from_what_is_piped_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("sesame\n"))
    assert main(["metrics", "--password", "prometheus"]) == 0
    file = tmp_path / "passwords"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert Passwords.load(file).allows(basic("prometheus", "sesame")["Authorization"])


def test_governor_metrics_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    shown = capsys.readouterr().out
    assert "governor_energy_joules_total{rail} (counter)" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed; apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-out", str(pem), "-keyout", str(key)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return pem, key


def test_with_a_certificate_only_tls_is_spoken(certificate: tuple[Path, Path]) -> None:
    pem, key = certificate
    with governed(MetricsConfig(listen=ANYWHERE, certificate=pem, key=key)) as (gov, _):
        url = gov.metrics_url
        assert url is not None
        assert url.startswith("https://localhost:")
        # a client that never speaks must not keep the next one from its handshake
        with socket.create_connection(("localhost", port_of(gov))):
            trusting = ssl.create_default_context(cafile=str(pem))
            with urllib.request.urlopen(url, timeout=10, context=trusting) as answer:
                assert b"governor_phase" in answer.read()
        with pytest.raises(OSError, match=r"."):
            fetch(url.replace("https", "http"))


def test_a_certificate_that_is_none_is_said_in_one_line(tmp_path: Path) -> None:
    pem = tmp_path / "cert.pem"
    pem.write_text("no certificate", encoding="utf-8")
    config = MetricsConfig(listen=ANYWHERE, certificate=pem, key=pem)
    with pytest.raises(InputError, match="no certificate and its key in PEM"), governed(config):
        pass


# Load and bad input -----------------------------------------------------------------------


def scrapes() -> int:
    return sum(thread.name == "scrape" for thread in threading.enumerate())


def test_scrapers_that_hang_neither_stop_others_nor_pile_up() -> None:
    with governed(ANYWHERE) as (gov, board), ExitStack() as hanging:
        for count in range(5 * MOST_THREADS):
            line = hanging.enter_context(socket.create_connection(("localhost", port_of(gov))))
            if count % 2:
                line.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
            assert scrapes() < 2 * MOST_THREADS
        assert "governor_phase" in fetch(gov.metrics_url)
        before = gov.status().inferences
        infer(gov, board, 30)
        assert gov.status().inferences > before


def test_many_scrapers_at_once_all_get_a_whole_answer() -> None:
    with governed(ANYWHERE) as (gov, _), ThreadPoolExecutor(16) as pool:
        for text in pool.map(fetch, [gov.metrics_url] * 100):
            assert value(text, "governor_phase", phase="baseline") == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00",
        b"\x00" * 100_000,
        b"GET " + b"/" * 100_000,
        b"FETCH / HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_garbage_ends_only_its_own_connection(
    garbage: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with governed(ANYWHERE) as (gov, _):
        with socket.create_connection(("localhost", port_of(gov))) as line:
            _send_and_drain(line, garbage)
        assert "governor_phase" in fetch(gov.metrics_url)
    assert capfd.readouterr() == ("", "")


def _send_and_drain(line: socket.socket, garbage: bytes) -> None:
    """The server may hang up at any byte: each way the socket has of saying so is its right."""
    try:
        line.sendall(garbage)
        line.shutdown(socket.SHUT_WR)
        line.settimeout(10)
        while line.recv(65536):
            pass
    except OSError as error:
        if error.errno not in {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}:
            raise


@pytest.mark.parametrize(("path", "method", "code"), [("/", "GET", 404), ("/metrics", "POST", 405)])
def test_other_paths_and_methods_are_refused(path: str, method: str, code: int) -> None:
    with governed(ANYWHERE) as (gov, _):
        url = f"http://localhost:{port_of(gov)}{path}"
        request = urllib.request.Request(url, method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        refused.value.close()
        assert refused.value.code == code


# From the command line --------------------------------------------------------------------


DEMO = ("demo", "--board", "nano", "--workload", "yolov8n-trt", "--latency-slo", "1.5x",
        "--policy", "coordinate")  # fmt: skip


def test_the_demo_says_where_its_metrics_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DEMO, "--metrics", ANYWHERE]) == 0
    assert capsys.readouterr().out.startswith("Metrics: http://localhost:")


@pytest.mark.parametrize("address", ["nowhere", "no.such.host.invalid:9477"])
def test_a_demo_that_cannot_listen_ends_with_one_line(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*DEMO, "--metrics", address]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
