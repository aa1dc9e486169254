"""One HTTP request, exactly as a test wants it sent."""

import http.client
import json
from dataclasses import dataclass, field

JSON = "application/json"
PROTOBUF = "application/x-protobuf"


@dataclass
class Answer:
    status: int
    headers: dict = field(repr=False)
    body: bytes

    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def media(self):
        value = self.headers.get("content-type")
        return value and value.split(";")[0]


def request(address, method, path, body=b"", headers=None, timeout=20.0):
    """The whole answer; redirects are not followed."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def get(address, path, **kwargs):
    return request(address, "GET", path, **kwargs)


def post_json(address, path, message, headers=None, **kwargs):
    all_headers = {"Content-Type": JSON, "Accept": JSON, **(headers or {})}
    return request(address, "POST", path, json.dumps(message).encode(), all_headers, **kwargs)


def operator(address, call, **kwargs):
    """An operator call, by name or whole, whose answer must be 200; the answer's JSON, `{}` when it is empty."""
    message = {"type": call} if isinstance(call, str) else call
    answer = post_json(address, "/api/v1", message, **kwargs)
    assert 200 <= answer.status < 300, f"{message['type']}: {answer.status} {answer.text[:500]}"
    return answer.json() if answer.body else {}
