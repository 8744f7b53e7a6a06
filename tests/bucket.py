"""A bucket on this machine: as much of Cloud Storage's JSON protocol as gcsfs, tensorstore and google-cloud-storage speak.

Objects are whole values under names: there are no folders, nothing is appended to, nothing is renamed but by copying,
and a value is seen when its upload has ended. `Bucket.refuse` plays a bucket that cannot be written.
"""

import base64
import hashlib
import http.server
import itertools
import json
import re
import struct
import sys
import threading
import urllib.parse

import google_crc32c


class Bucket:
  """A server on a free port while the context lasts; objects: name -> (generation, content), buckets' names in front."""

  def __init__(self):
    self.objects, self.uploads, self.refuse = {}, {}, 0
    self._generations, self._lock = itertools.count(1), threading.Lock()
    self._server = _Server(("127.0.0.1", 0), type("_Bound", (_Handler,), {"bucket": self}))
    self.url = f"http://127.0.0.1:{self._server.server_port}"

  def __enter__(self) -> "Bucket":
    threading.Thread(target=self._server.serve_forever, daemon=True).start()
    return self

  def __exit__(self, *_):
    self._server.shutdown()
    self._server.server_close()

  @property
  def environment(self) -> dict[str, str]:
    """What makes the clients of a process come here, without credentials."""
    # The last one: gcsfs would ask over another protocol, gRPC, whether the bucket has folders after all.
    return {"STORAGE_EMULATOR_HOST": self.url, "TENSORSTORE_GCS_HTTP_URL": self.url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "NO_GCE_CHECK": "true", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}

  def put(self, name: str, content: bytes, generation: str | None = None) -> dict | None:
    """The description of a new object; None where the name's generation is not the given one (0: no object)."""
    with self._lock:
      if generation is not None and self.objects.get(name, (0,))[0] != int(generation):
        return None
      self.objects[name] = (next(self._generations), content)
    return self.describe(name)

  def describe(self, name: str) -> dict:
    """The object's metadata, as the protocol has it."""
    generation, content = self.objects[name]
    bucket, _, rest = name.partition("/")
    code = lambda x: base64.b64encode(x).decode()
    return {"kind": "storage#object", "id": f"{name}/{generation}", "name": rest, "bucket": bucket, "generation": str(generation),
            "metageneration": "1", "size": str(len(content)), "contentType": "application/octet-stream", "storageClass": "STANDARD",
            "md5Hash": code(hashlib.md5(content).digest()), "crc32c": code(struct.pack(">I", google_crc32c.value(content))),
            "etag": str(generation), "timeCreated": "2026-01-01T00:00:00.000Z", "updated": "2026-01-01T00:00:00.000Z",
            "mediaLink": f"{self.url}/download/storage/v1/b/{bucket}/o/{urllib.parse.quote(rest, safe='')}?alt=media"}


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, request, client_address):
    if not isinstance(sys.exception(), ConnectionError):  # Clients hang up when they have what they wanted.
      super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  bucket: Bucket

  def log_message(self, *_):
    pass

  def _answer(self, status: int, content: bytes | dict = b"", **headers):
    content = json.dumps(content).encode() if isinstance(content, dict) else content
    self.send_response(status)
    for name, value in ({"Content_Type": "application/json", "Content_Length": str(len(content))} | headers).items():
      self.send_header(name.replace("_", "-"), value)
    self.end_headers()
    self.wfile.write(content)

  def _error(self, status: int, reason: str):
    self._answer(status, {"error": {"code": status, "message": reason, "errors": [{"reason": reason, "message": reason}]}})

  def _body(self) -> bytes:
    if self.headers.get("Transfer-Encoding") == "chunked":
      parts = []
      while size := int(self.rfile.readline().split(b";")[0], 16):
        parts.append(self.rfile.read(size))
        self.rfile.readline()
      self.rfile.readline()
      return b"".join(parts)
    return self.rfile.read(int(self.headers.get("Content-Length", 0)))

  def _handle(self):
    content = self._body()
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    if url.path.startswith("/batch"):
      return self._batch(content)
    match = re.fullmatch(r"/(upload/|download/|resumable/)?storage/v1/b/([^/]+)(?:/o)?(?:/([^/]+))?(?:/(rewriteTo|copyTo)/b/([^/]+)/o/([^/]+))?",
                         url.path)
    if not match:
      return self._error(501, f"{self.command} {self.path} is not played here")
    kind, bucket, name, _, *target = match.groups()
    name = f"{bucket}/{urllib.parse.unquote(name)}" if name else None
    writes = self.command in ("POST", "PUT", "DELETE")
    if writes and self.bucket.refuse:
      return self._error(self.bucket.refuse, "refused")
    if kind == "upload/":
      return self._upload(bucket, query, content)
    if name is None:
      is_bucket = not url.path.endswith("/o")
      return self._answer(200, {"kind": "storage#bucket", "name": bucket} if is_bucket else self._list(bucket, query))
    if name not in self.bucket.objects:
      return self._error(404, "notFound")
    if target[0]:
      made = self.bucket.put(f"{target[0]}/{urllib.parse.unquote(target[1])}", self.bucket.objects[name][1])
      return self._answer(200, {"kind": "storage#rewriteResponse", "done": True, "resource": made})
    if self.command == "DELETE":
      del self.bucket.objects[name]
      return self._answer(204)
    return self._read(name, query, media=kind == "download/" or query.get("alt") == "media")

  do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle

  def _read(self, name: str, query: dict, media: bool):
    generation, content = self.bucket.objects[name]
    if str(generation) == query.get("ifGenerationNotMatch"):
      return self._answer(304)
    if not media:
      return self._answer(200, self.bucket.describe(name))
    headers = {"Content_Type": "application/octet-stream", "x_goog_generation": str(generation), "ETag": str(generation)}
    limits = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
    if not limits:
      return self._answer(200, content, **headers)
    first, last = limits.groups()
    start = int(first) if first else max(0, len(content) - int(last))
    stop = min(len(content), int(last) + 1) if first and last else len(content)
    if start >= len(content):
      return self._error(416, "requestedRangeNotSatisfiable")
    return self._answer(206, content[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{len(content)}", **headers)

  def _upload(self, bucket: str, query: dict, content: bytes):
    kind, generation = query["uploadType"], query.get("ifGenerationMatch")
    if kind == "resumable" and "upload_id" not in query:
      key = str(len(self.bucket.uploads))
      name = query.get("name") or json.loads(content)["name"]
      self.bucket.uploads[key] = [f"{bucket}/{name}", generation, b""]
      where = f"{self.bucket.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={key}"
      return self._answer(200, Location=where, X_GUploader_UploadID=key)
    if kind == "resumable":
      upload = self.bucket.uploads[query["upload_id"]]
      upload[2] += content
      if self.headers.get("Content-Range", "").endswith("/*"):
        return self._answer(308, Range=f"bytes=0-{len(upload[2]) - 1}")
      name, generation, content = upload
    elif kind == "multipart":
      boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].strip("'").encode()
      description, media = (part.partition(b"\r\n\r\n" if b"\r\n\r\n" in part else b"\n\n")[2]
                            for part in content.split(b"--" + boundary)[1:3])
      content = media.removesuffix(b"\n").removesuffix(b"\r")
      name = f"{bucket}/{query.get('name') or json.loads(description)['name']}"
    else:
      name = f"{bucket}/{query['name']}"
    made = self.bucket.put(name, content, generation)
    return self._answer(200, made) if made else self._error(412, "conditionNotMet")

  def _list(self, bucket: str, query: dict) -> dict:
    prefix, delimiter = f"{bucket}/{query.get('prefix', '')}", query.get("delimiter")
    names = sorted(name for name in list(self.bucket.objects) if name.startswith(prefix))
    items, prefixes = [], set()
    for name in names:
      rest = name.removeprefix(prefix)
      if delimiter and delimiter in rest:
        prefixes.add(name[len(bucket) + 1:len(name) - len(rest)] + rest.partition(delimiter)[0] + delimiter)
        if not (query.get("includeTrailingDelimiter") == "true" and rest.endswith(delimiter) and rest.count(delimiter) == 1):
          continue
      below = name[len(bucket) + 1:]
      if query.get("startOffset", "") <= below and (not query.get("endOffset") or below < query["endOffset"]):
        items.append(self.bucket.describe(name))
    return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

  def _batch(self, content: bytes):
    """Deletions, several in one request; its answer has a part for each."""
    parts = []
    for found in re.findall(rb"DELETE /storage/v1/b/([^/]+)/o/([^ ?]+)", content):
      bucket, name = (urllib.parse.unquote(x.decode()) for x in found)
      status = "503 Refused" if self.bucket.refuse else "204 No Content" if self.bucket.objects.pop(f"{bucket}/{name}", None) else "404 Not Found"
      parts.append(f"--part\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status}\r\n\r\n\r\n")
    self._answer(200, ("".join(parts) + "--part--\r\n").encode(), Content_Type="multipart/mixed; boundary=part")
