"""A Hub in memory on 127.0.0.1: as much of the protocol as an upload and a download need.

Branches are dicts of files, every commit is kept, large files (safetensors) go by the LFS protocol. What
huggingface_hub asks beyond that gets a 404. `requests` lists all that was asked.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_" + "a" * 30


class HubServer:
    """`with HubServer() as hub:` serves at `hub.url`.

    Attributes:
        commits: files by path, of every commit by its 40 hex digits.
        branches: commit by (repository, branch).
        blobs: LFS content by sha256; a test may damage it.
        requests: (method, path) of everything that was asked.
    """

    def __init__(self):
        self.commits, self.branches, self.blobs, self.requests = {}, {}, {}, []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repo, branch, files):
        """Make `files` (bytes, or the sha256 of a blob as str) the content of a branch; returns the commit."""
        oid = hashlib.sha1(f"{repo} {branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches[repo, branch] = oid
        return oid

    def files(self, repo, revision):
        """(commit, files) of a branch or a commit; None where there is none."""
        oid = self.branches.get((repo, revision), revision)
        return (oid, self.commits[oid]) if oid in self.commits else None


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _answer(self, status, body=b"", headers=None, length=None):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": length or len(body), **(headers or {})}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self):
        path = self.path.split("?")[0].replace("%2F", "/")
        self.hub.requests.append((self.command, path))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        for pattern, method, action in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                return action(self, *found.groups())
        return self._answer(404, {"error": "no such thing"}, {"X-Error-Code": "EntryNotFound"})

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _refused(self, repo=""):
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif repo.startswith("forbidden/"):
            message = "You don't have the rights to create a model under the namespace forbidden"
            self._answer(403, {"error": message}, {"X-Error-Message": message})
        else:
            return False
        return True

    def create(self):
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        if self._refused(repo):
            return
        exists = (repo, "main") in self.hub.branches
        if not exists:
            self.hub.commit(repo, "main", {".gitattributes": b""})
        self._answer(409 if exists else 200, {"url": f"{self.hub.url}/{repo}"})

    def branch(self, repo, name):
        if self._refused(repo):
            return
        exists = (repo, name) in self.hub.branches
        if not exists:
            self.hub.branches[repo, name] = self.hub.branches[repo, "main"]
        self._answer(409 if exists else 200, {})

    def tree(self, repo, revision):
        found = self.hub.files(repo, revision)
        listed = [{"type": "file", "path": p, "size": 1, "oid": "0"} for p in (found[1] if found else ())]
        self._answer(200 if found else 404, listed)

    def preupload(self, repo, revision):
        modes = {True: "lfs", False: "regular"}
        asked = [file["path"] for file in json.loads(self.body)["files"]]
        files = [
            {"path": p, "uploadMode": modes[p.endswith(".safetensors")], "shouldIgnore": False} for p in asked
        ]
        self._answer(200, {"files": files})

    def batch(self, repo):
        if self._refused(repo):
            return
        objects = json.loads(self.body)["objects"]
        for item in objects:
            item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
        self._answer(200, {"transfer": "basic", "objects": objects})

    def store(self, oid):
        fits = hashlib.sha256(self.body).hexdigest() == oid
        if fits:
            self.hub.blobs[oid] = self.body
        self._answer(200 if fits else 400)

    def commit(self, repo, revision):
        if self._refused(repo):
            return
        files = dict(self.hub.files(repo, revision)[1])
        for line in self.body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = value["oid"]
            elif key == "deletedFile":
                del files[value["path"]]
        oid = self.hub.commit(repo, revision, files)
        self._answer(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def resolve(self, repo, revision, path):
        found = self.hub.files(repo, revision)
        if found is None:
            return self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        commit, files = found
        if path not in files:
            return self._answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = files[path]
        etag = content if isinstance(content, str) else hashlib.sha1(content).hexdigest()
        body = self.hub.blobs[content] if isinstance(content, str) else content
        self._answer(200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})


_REPO = r"([^/]+/[^/]+)"
_ROUTES = [
    (r"/api/repos/create", ("POST",), _Handler.create),
    (r"/api/validate-yaml", ("POST",), lambda self: self._answer(200, {})),
    (rf"/api/models/{_REPO}/branch/(.+)", ("POST",), _Handler.branch),
    (rf"/api/models/{_REPO}/tree/([^/]+)/?", ("GET",), _Handler.tree),
    (rf"/api/models/{_REPO}/preupload/(.+)", ("POST",), _Handler.preupload),
    (rf"/api/models/{_REPO}/commit/(.+)", ("POST",), _Handler.commit),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", ("POST",), _Handler.batch),
    (r"/lfs/(.+)", ("PUT",), _Handler.store),
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", ("GET", "HEAD"), _Handler.resolve),
]
