"""The stand-in as a whole: proxy, control plane, blob service, and the environment that leads the SDKs to it."""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.azure.azurite import Azurite, why_missing
from tests.azure.blob_plane import BlobExchange
from tests.azure.certificates import make_certificates
from tests.azure.control_plane import SIGN_IN, ControlExchange
from tests.azure.faults import Traffic
from tests.azure.plane import Plane
from tests.azure.proxy import ProxyConnection
from tests.azure.registries import StandInRegistry
from tests.azure.workspaces import StandInWorkspace

CONTROL_HOSTS = ("management.azure.com", SIGN_IN, "login.windows.net")
CONTROL_DOMAINS = (".api.azureml.ms", ".experiments.azureml.net")
BLOB_DOMAIN = ".blob.core.windows.net"


class StandIn:
    """One subscription with one resource group and one storage account; workspaces are made as tests need them.

    secrets: every secret that was handed out, for tests to look for where none may be.
    clock_ahead: seconds by which the control plane's clock is ahead of this machine's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tenant, self.subscription, self.client = (str(uuid.uuid4()) for _ in range(3))
        self.resource_group, self.account = "press-tests", "presstests"
        self.account_key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.client_secret, self.token_signature = secrets.token_urlsafe(30), secrets.token_urlsafe(30)
        self.secrets = {self.account_key, self.client_secret, self.token_signature}
        self.workspaces: dict[str, StandInWorkspace] = {}
        self.registries: dict[str, StandInRegistry] = {}
        self.traffic = Traffic()
        self.clock_ahead = 0.0
        hosts = (*CONTROL_HOSTS, *(f"*{domain}" for domain in (*CONTROL_DOMAINS, BLOB_DOMAIN)))
        self.certificates = make_certificates(folder, hosts)
        self._azurite: Azurite | None = None
        self._planes = self._start_planes()

    @property
    def environment(self) -> dict[str, str]:
        """What leads a process here and signs it in; nothing else steers the SDKs."""
        proxy = f"http://127.0.0.1:{self._planes['proxy'].port}"
        proxies = {name: proxy for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")}
        authority = str(self.certificates.authority)
        return {
            **proxies,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": authority,
            "CURL_CA_BUNDLE": authority,
            "SSL_CERT_FILE": authority,
            "AZURE_TENANT_ID": self.tenant,
            "AZURE_CLIENT_ID": self.client,
            "AZURE_CLIENT_SECRET": self.client_secret,
            "AZURE_CONFIG_DIR": str(self.folder / "azure-cli"),
            "AZURE_SUBSCRIPTION_ID": self.subscription,
            "AZURE_RESOURCE_GROUP": self.resource_group,
        }

    def workspace(self, **options: Any) -> StandInWorkspace:
        """A new workspace; its container is made where the blob service runs."""
        name = f"ws{len(self.workspaces)}"
        made = StandInWorkspace(self, name, **options)
        self.workspaces[name] = made
        if self._azurite:
            self.storage(made).create_container()
        return made

    def registry(self, name: str | None = None) -> StandInRegistry:
        """A new registry with a container of its own."""
        made = StandInRegistry(self, name or f"registry{len(self.registries)}")
        self.registries[made.name] = made
        self.storage_of(made.container_name).create_container()
        return made

    def storage(self, workspace: StandInWorkspace) -> Any:
        """The ContainerClient of the account's owner, past proxy and faults, to look and to do damage."""
        return self.storage_of(workspace.container_name)

    def storage_of(self, container: str) -> Any:
        """The same of any container, by its name."""
        from azure.storage.blob import ContainerClient

        assert self._azurite is not None
        url = f"https://127.0.0.1:{self._azurite.port}/{self.account}"
        credential: Mapping[str, str] = {"account_name": self.account, "account_key": self.account_key}
        authority = str(self.certificates.authority)
        options: dict[str, Any] = {"connection_verify": authority, "use_env_settings": False}
        return ContainerClient(url, container, credential=credential, **options)

    def start_again(self) -> None:
        """Forget faults and requests, set the clock right."""
        self.traffic.forget()
        self.clock_ahead = 0.0

    def stop(self) -> None:
        for workspace in self.workspaces.values():
            workspace.compute.stop()
        for plane in self._planes.values():
            plane.stop()
        if self._azurite:
            self._azurite.stop()

    def _start_planes(self) -> dict[str, Plane]:
        shared = {"traffic": self.traffic}
        control = type("Control", (ControlExchange,), {**shared, "stand_in": self})
        planes = {"control": Plane(control, self.certificates)}
        if why_missing() is None:
            self._azurite = Azurite(self.folder, self.certificates, self.account, self.account_key)
            blob = type("Blob", (BlobExchange,), {**shared, "azurite_port": self._azurite.port})
            planes["blob"] = Plane(blob, self.certificates)
        proxy = type("Proxy", (ProxyConnection,), {**shared, "port_of": self._port_of})
        planes["proxy"] = Plane(proxy)
        for plane in planes.values():
            plane.start()
        return planes

    def _port_of(self, host: str) -> int | None:
        if host in CONTROL_HOSTS or host.endswith(CONTROL_DOMAINS):
            return self._planes["control"].port
        if host == self.account + BLOB_DOMAIN and "blob" in self._planes:
            return self._planes["blob"].port
        return None
