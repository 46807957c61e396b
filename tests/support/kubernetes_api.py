"""A stand-in for the Kubernetes API that a real Helm, and pods with access to the API, talk to.

It stores objects, and merges what clients send by the rules that matter here: JSON patches, merge patches, and
server-side apply with owners of fields and conflicts. Lists are replaced as a whole. It runs no controllers; a test
sets what they would.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.support.kubernetes_protobuf import MAGIC, read_secret

RESOURCES = {
    "v1": ("Secret", "Service", "ConfigMap", "ServiceAccount", "PersistentVolumeClaim", "Pod"),
    "apps/v1": ("Deployment", "StatefulSet"),
    "batch/v1": ("Job", "CronJob"),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "policy/v1": ("PodDisruptionBudget",),
    "networking.k8s.io/v1": ("NetworkPolicy", "Ingress"),
    "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
}
"""The kinds that the API has, by group and version."""
NAMESPACE = "ai"
Path_ = tuple[str, ...]
"""The path of a field."""


class RejectedError(Exception):
    """The API answers with an error."""

    def __init__(self, code: int, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.code, self.reason = code, reason


class StoredObject:
    """An object, and who owns its fields."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}
        self.owners: dict[Path_, set[str]] = {}

    def apply(self, body: Mapping[str, Any], manager: str, *, force: bool) -> None:
        """Apply as the server does: https://kubernetes.io/docs/reference/using-api/server-side-apply/."""
        present, wanted = _fields(self.content), _fields(body)
        conflicts = {
            path: others
            for path, value in wanted.items()
            if (others := self.owners.get(path, set()) - {manager}) and present.get(path) != value
        }
        if conflicts and not force:
            named = [f"{', '.join(others)}: .{'.'.join(path)}" for path, others in conflicts.items()]
            raise RejectedError(409, "Conflict", f"Apply failed with {len(named)} conflict: conflict with {named}")
        for path, value in wanted.items():
            _set(self.content, path, value)
            self.owners[path] = {manager} if path in conflicts else self.owners.get(path, set()) | {manager}
        for path in [path for path, owners in self.owners.items() if manager in owners and path not in wanted]:
            self.owners[path].discard(manager)
            if not self.owners[path]:
                del self.owners[path]
                _remove(self.content, path)

    def update(self, content: dict[str, Any], manager: str) -> None:
        """Replace the content: who changes a field owns it, and nobody owns a field that is removed."""
        before, after = _fields(self.content), _fields(content)
        self.content = content
        for path in before.keys() - after.keys():
            self.owners.pop(path, None)
        for path, value in after.items():
            if path not in before or before[path] != value:
                self.owners[path] = {manager}


class KubernetesServer(ThreadingHTTPServer):
    """The API server. Its address is loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.objects: dict[tuple[str, str], StoredObject] = {}
        """The objects by resource, such as `deployments`, and name."""
        self.changes: list[tuple[str, str, str, Any]] = []
        """What clients changed: the method, the resource, the name and the body."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def manifests(self) -> list[dict[str, Any]]:
        """Return all objects but those in which Helm keeps its releases."""
        return [
            copy.deepcopy(each.content)
            for each in self.objects.values()
            if each.content.get("type") != "helm.sh/release.v1"
        ]

    def get(self, resource: str, name: str) -> dict[str, Any]:
        """Return an object, for a test to read or change."""
        return self.objects[resource, name].content

    def names(self, resource: str) -> set[str]:
        """Return the names of all objects of a resource."""
        return {name for kind, name in self.objects if kind == resource}

    def kubeconfig(self, directory: Path) -> Path:
        """Write a configuration for clients, and return its path."""
        path = directory / "kubeconfig"
        context = {"cluster": "c", "user": "u", "namespace": NAMESPACE}
        path.write_text(
            yaml.safe_dump(
                {
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "x", "context": context}],
                    "current-context": "x",
                }
            )
        )
        path.chmod(0o600)
        return path


class _Handler(BaseHTTPRequestHandler):
    server: KubernetesServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, body: Mapping[str, Any], status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _serve(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = read_secret(raw) if raw.startswith(MAGIC) else yaml.safe_load(raw) if raw else None
        try:
            with self.server.lock:
                self._answer(_discovery(url.path) or self._result(url.path, query, body))
        except RejectedError as error:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": error.code}
            self._answer({**status, "reason": error.reason, "message": str(error)}, error.code)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815  # the base class calls these names

    def _result(self, path: str, query: Mapping[str, str], body: Any) -> Mapping[str, Any]:
        parts = path.split(f"/namespaces/{NAMESPACE}/")
        if len(parts) != 2:
            raise RejectedError(404, "NotFound", path)
        group = parts[0].removeprefix("/apis/").removeprefix("/api/")
        resource, _, name = parts[1].partition("/")
        objects = self.server.objects
        if self.command == "GET" and not name:
            return _listed(group, resource, query, objects)
        name = name or body["metadata"]["name"]
        if self.command in ("GET", "DELETE", "PUT") and (resource, name) not in objects:
            raise RejectedError(404, "NotFound", f"{resource} {name}")
        if self.command == "GET":
            return objects[resource, name].content
        self.server.changes.append((self.command, resource, name, body))
        if self.command == "DELETE":
            del objects[resource, name]
            return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        content_type = self.headers["Content-Type"] if self.command == "PATCH" else ""
        manager = query.get("fieldManager", "unknown")
        stored = objects.get((resource, name))
        if stored is None:
            if content_type and "apply-patch" not in content_type:
                raise RejectedError(404, "NotFound", f"{resource} {name}")
            stored = objects[resource, name] = StoredObject()
        if "apply-patch" in content_type:
            stored.apply(body, manager, force=query.get("force") == "true")
        else:
            stored.update(_changed(stored.content, content_type, body), manager)
        return stored.content


@contextmanager
def running_kubernetes() -> Iterator[KubernetesServer]:
    """Run the API for the time of a block."""
    with KubernetesServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


def _changed(content: dict[str, Any], content_type: str, body: Any) -> dict[str, Any]:
    if not content_type:
        return dict(body)
    result = copy.deepcopy(content)
    if content_type != "application/json-patch+json":
        # A strategic merge patch differs in lists, which no test looks into.
        _merge(result, body)
        return result
    for step in body:
        path = tuple(part.replace("~1", "/") for part in step["path"].split("/")[1:])
        if step["op"] == "test" and _get(result, path) != step["value"]:
            raise RejectedError(422, "Invalid", f"testing path {step['path']} failed")
        if step["op"] == "remove":
            _remove(result, path)
    return result


def _merge(content: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for name, value in patch.items():
        if value is None:
            content.pop(name, None)
        elif isinstance(value, dict) and isinstance(content.get(name), dict):
            _merge(content[name], value)
        elif not name.startswith("$"):
            content[name] = value


def _fields(content: Mapping[str, Any], path: Path_ = ()) -> dict[Path_, Any]:
    found: dict[Path_, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict) and value:
            found |= _fields(value, (*path, name))
        else:
            found[*path, name] = value
    return found


def _get(content: Mapping[str, Any], path: Path_) -> Any:
    value: Any = content
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _set(content: dict[str, Any], path: Path_, value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(content.get(name), dict):
            content[name] = {}
        content = content[name]
    content[path[-1]] = value


def _remove(content: dict[str, Any], path: Path_) -> None:
    parent = _get(content, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)


def _listed(
    group: str, resource: str, query: Mapping[str, str], objects: Mapping[tuple[str, str], StoredObject]
) -> dict[str, Any]:
    selected = dict(term.split("=") for term in query.get("labelSelector", "").split(",") if term)
    items = [
        stored.content
        for (kind, _), stored in objects.items()
        if kind == resource and selected.items() <= stored.content["metadata"].get("labels", {}).items()
    ]
    (kind,) = (kind for kind in RESOURCES[group] if _plural(kind) == resource)
    return {"kind": f"{kind}List", "apiVersion": group, "metadata": {}, "items": items}


def _plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}es" if name.endswith("ss") else f"{name}s"


def _discovery(path: str) -> Mapping[str, Any] | None:
    """Return what the API says about itself at a path, or None."""
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for version in RESOURCES.keys() - {"v1"}:
            one = {"groupVersion": version, "version": version.partition("/")[2]}
            groups.append({"name": version.partition("/")[0], "versions": [one], "preferredVersion": one})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in RESOURCES:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update"]
    resources = [
        {"name": _plural(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
        for kind in RESOURCES[version]
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
