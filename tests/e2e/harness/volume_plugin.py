#!/usr/bin/env python3
"""A Docker volume plugin, as small as one can be: volumes are directories, mounted by a bind mount.

Speaks the protocol that Docker documents, at a Unix socket: python3 volume_plugin.py SOCKET DIRECTORY. Each call is a line of
JSON in DIRECTORY/calls. With a file DIRECTORY/fail that names a call, that call fails; with DIRECTORY/hang, it does not answer.
"""

import json
import os
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler

LOCK = threading.Lock()


class Plugin(BaseHTTPRequestHandler):
    """One call."""

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length) or b"{}")
        call = self.path.lstrip("/")
        with LOCK:
            self.log_call(call, body)
            if call in self.read("hang"):
                threading.Event().wait()
            answer = {"Err": "told to fail"} if call in self.read("fail") else self.answer(call, body)
        data = json.dumps({"Err": "", **answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, call, body):
        if call == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        name = body["Name"]
        data, point = os.path.join(self.base, "data", name), os.path.join(self.base, "mounts", name)
        if call == "VolumeDriver.Get":
            return {"Volume": {"Name": name}} if os.path.exists(data) else {"Err": f"no such volume: {name}"}
        if call == "VolumeDriver.Create":
            os.makedirs(data, exist_ok=True)
            with open(os.path.join(data, "options"), "w") as file:
                json.dump(body.get("Opts"), file, sort_keys=True)
            return {}
        if call == "VolumeDriver.Mount":
            if self.is_mounted(point):
                return {"Err": f"{name} is mounted already"}
            os.makedirs(point, exist_ok=True)
            subprocess.run(["mount", "--bind", data, point], check=True)
            return {"Mountpoint": point}
        if call == "VolumeDriver.Unmount":
            if not self.is_mounted(point):
                return {"Err": f"{name} is not mounted"}
            subprocess.run(["umount", point], check=True)
            return {}
        return {"Err": f"unknown call {call}"}

    @staticmethod
    def is_mounted(point):
        """Not by os.path.ismount, which sees no bind mount of the same file system."""
        with open("/proc/self/mountinfo") as table:
            return any(line.split(" ")[4] == point for line in table)

    def log_call(self, call, body):
        with open(os.path.join(self.base, "calls"), "a") as file:
            file.write(json.dumps({"call": call, **body}) + "\n")

    def read(self, name):
        try:
            with open(os.path.join(self.base, name)) as file:
                return file.read().split()
        except FileNotFoundError:
            return []

    def address_string(self):
        return "agent"

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def main():
    socket, Plugin.base = sys.argv[1:]
    with Server(socket, Plugin) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
