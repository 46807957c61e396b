"""The Kubernetes API, for the few pods that have access to it."""

from __future__ import annotations

import os
import ssl
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TIMEOUT_SECONDS: Final = 5.0
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class KubernetesApi:
    """The resources of one namespace."""

    url: str
    namespace: str
    token_file: Path = _ACCOUNT / "token"
    context: ssl.SSLContext | None = None

    def get(self, group: str, resource: str) -> bytes:
        """Return what the API has at a path such as `deployments/m` of a group such as `apis/apps/v1`.

        Raises:
            OSError: The API cannot be reached, or rejects the request (`urllib.error.HTTPError`).
        """
        return self._call("GET", group, resource)

    def patch(self, group: str, resource: str, body: bytes, content_type: str) -> None:
        """Change a resource. Raises OSError, as `get` does."""
        self._call("PATCH", group, resource, body, content_type)

    def _call(self, method: str, group: str, resource: str, body: bytes | None = None, content_type: str = "") -> bytes:
        # The kubelet renews the token.
        headers = {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}
        if content_type:
            headers["Content-Type"] = content_type
        request = urllib.request.Request(  # noqa: S310  # the address is that of the cluster
            f"{self.url}/{group}/namespaces/{self.namespace}/{resource}", data=body, method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=self.context) as response:  # noqa: S310
            return bytes(response.read())


def from_environment() -> KubernetesApi:
    """Return the API of the cluster that runs this pod, and the namespace in VILIX_NAMESPACE."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return KubernetesApi(
        url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=os.environ["VILIX_NAMESPACE"],
        context=ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt")),
    )
