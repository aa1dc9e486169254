"""Registries that want to know who asks: a real `docker-registry` with basic authentication, with a token server of the test's, or over TLS.

All hold `test/busybox:latest` of `images`, and, where asked for, `test/large:latest` with a layer that does not compress.
"""

import base64
import hashlib
import http.client
import http.server
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse

from . import trees, wait
from .images import listening

USER, PASSWORD = "user", "pass word"
TOOLS = ("docker-registry", "skopeo", "umoci", "htpasswd", "openssl")


def sh(*words, **how):
    done = subprocess.run(words, capture_output=True, **how)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.decode()}"
    return done.stdout


def certificates(base):
    """An authority of the test's, `ca.crt`, and `server.crt` with `server.key` by it for 127.0.0.1, in this directory; the authority's path."""
    at = lambda name: os.path.join(base, name)  # noqa: E731
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    sh("openssl", "req", "-x509", *curve, "-days", "2", "-subj", "/CN=authority of a test", "-keyout", at("ca.key"), "-out", at("ca.crt"))
    sh("openssl", "req", *curve, "-subj", "/CN=server", "-keyout", at("server.key"), "-out", at("server.csr"))
    with open(at("names"), "w") as names:
        names.write("subjectAltName=IP:127.0.0.1\n")
    sh("openssl", "x509", "-req", "-in", at("server.csr"), "-CA", at("ca.crt"), "-CAkey", at("ca.key"), "-CAcreateserial", "-days", "2",
       "-extfile", at("names"), "-out", at("server.crt"))  # fmt: skip
    return at("ca.crt")


def config_json(registry, user=USER, password=PASSWORD):
    """A Docker config.json with one login."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return json.dumps({"auths": {registry: {"auth": auth}}})


class Registry:
    """`kind` is `plain`, `basic`, `token` or `tls`; `address` is where it listens."""

    def __init__(self, kind, images, large=0):
        self.kind, self.base = kind, tempfile.mkdtemp(prefix="tepui-registry-")
        config = {
            "version": 0.1,
            "log": {"accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": os.path.join(self.base, "data")}},
            "http": {"addr": "127.0.0.1:0"},
        }
        self.tokens = None
        if kind == "basic":
            users = sh("htpasswd", "-Bbn", USER, PASSWORD)
            self._write("htpasswd", users)
            config["auth"] = {"htpasswd": {"realm": "test", "path": os.path.join(self.base, "htpasswd")}}
        if kind == "token":
            self.tokens = Tokens(self.base)
            config["auth"] = {"token": self.tokens.of_registry()}
        if kind == "tls":
            self.authority = certificates(self.base)
            config["http"]["tls"] = {"certificate": os.path.join(self.base, "server.crt"), "key": os.path.join(self.base, "server.key")}
        self._write("registry.yml", json.dumps(config).encode())
        self._log = open(os.path.join(self.base, "registry.log"), "wb")
        self._process = subprocess.Popen(
            ["docker-registry", "serve", os.path.join(self.base, "registry.yml")], stdout=self._log, stderr=subprocess.STDOUT
        )
        self.address = wait.until(lambda: listening(self.log()), 20, "the registry listens")
        self._push(f"oci:{images.layout}:latest", "test/busybox")
        if large:
            self._push_large(images, large)

    def _write(self, name, content):
        with open(os.path.join(self.base, name), "wb") as file:
            file.write(content)

    def _push(self, source, repository):
        login = {"basic": ["--dest-creds", f"{USER}:{PASSWORD}"], "token": ["--dest-creds", f"{USER}:{PASSWORD}"]}.get(self.kind, [])
        sh("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *login, source, f"docker://{self.address}/{repository}:latest")

    def _push_large(self, images, size):
        layout = os.path.join(self.base, "large")
        sh("cp", "-a", images.layout, layout)
        content = os.urandom(size)
        self.large_digest = hashlib.sha256(content).hexdigest()
        self._write("random", content)
        sh("umoci", "insert", "--image", f"{layout}:latest", os.path.join(self.base, "random"), "/random")
        self._push(f"oci:{layout}:latest", "test/large")

    def log(self):
        with open(os.path.join(self.base, "registry.log"), errors="replace") as log:
            return log.read()

    def blobs_sent(self):
        """Each GET of a blob that the registry answered, by digest."""
        return re.findall(r'"GET /v2/\S+/blobs/(sha256:[0-9a-f]+) HTTP/\S+" 20', self.log())

    def close(self):
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
        if self.tokens:
            self.tokens.close()
        trees.remove(self.base)


class Tokens:
    """A token server as the distribution specification has it: signs what the registry verifies. It gives tokens to USER only."""

    def __init__(self, base):
        self.base, self.asked = base, []
        self._key, self._certificate = os.path.join(base, "token.key"), os.path.join(base, "token.crt")
        sh("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens", "-keyout", self._key, "-out", self._certificate)
        tokens = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                tokens._answer(self)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of_registry(self):
        return {"realm": f"http://{self.address}/token", "service": "test", "issuer": "tests", "rootcertbundle": self._certificate}

    def _answer(self, handler):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        given = handler.headers.get("Authorization", "")
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self.asked.append((query.get("scope", [""])[0], given == expected))
        if given != expected:
            handler.send_response(401)
            handler.end_headers()
            return
        body = json.dumps({"token": self._token(query.get("scope", []))}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _token(self, scopes):
        der = sh("openssl", "x509", "-in", self._certificate, "-outform", "DER")
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": "tests", "sub": USER, "aud": "test", "exp": now + 60, "nbf": now - 10, "iat": now, "jti": os.urandom(8).hex(), "access": access}
        part = lambda value: base64.urlsafe_b64encode(value).rstrip(b"=")  # noqa: E731
        signed = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
        signature = sh("openssl", "dgst", "-sha256", "-sign", self._key, input=signed)
        return (signed + b"." + part(signature)).decode()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Cutting:
    """A proxy before a plain registry that breaks off `cuts` answers of blobs of more than four times `after` bytes, each after that many bytes. `ranges` are what was asked."""

    def __init__(self, address, cuts, after):
        self.ranges, self._cuts, self._lock = [], cuts, threading.Lock()
        cutting = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                cutting._forward(self, address, after)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _forward(self, handler, address, after):
        connection = http.client.HTTPConnection(address)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(handler.command, handler.path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        cut = False
        whole = int((answer.getheader("Content-Range") or f"/{len(body)}").rsplit("/", 1)[1])
        if "/blobs/" in handler.path and whole > 4 * after:
            with self._lock:
                self.ranges.append(handler.headers.get("Range"))
                cut, self._cuts = self._cuts > 0, self._cuts - 1
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[:after] if cut else body)
        if cut:
            handler.close_connection = True

    def close(self):
        self._server.shutdown()
        self._server.server_close()
