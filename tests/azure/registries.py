"""Registries, such as the model catalog: their discovery, versions of models, and signed addresses of their blobs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.azure.control_plane import PROVIDER, Refused
from tests.azure.workspaces import system_data

if TYPE_CHECKING:
    from tests.azure.stand_in import StandIn

REGION = "eastus.api.azureml.ms"
DISCOVERY = re.compile(r"/registrymanagement/v1\.0/registries/([^/]+)/discovery")
REGISTRY = re.compile(
    rf"/mferp/managementfrontend/subscriptions/([^/]+)/resourceGroups/([^/]+){PROVIDER}/registries/([^/]+)(/.*)"
)
VERSION = re.compile(r"/(models|datarefs)/([^/]+)/versions/([^/]+)")


@dataclass
class StandInRegistry:
    """One registry with a container of its own; sas_seconds: how long an address that it signs is good for."""

    stand_in: StandIn
    name: str
    sas_seconds: float = 3600
    _models: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def container_name(self) -> str:
        return f"registry-{self.name}"

    @property
    def url(self) -> str:
        return f"https://{self.stand_in.account}.blob.core.windows.net/{self.container_name}"

    def add_model(self, name: str, version: str, folder: Path) -> None:
        """Publish the files of `folder` as a version of a model."""
        start = f"{name}/{version}/contents"
        storage = self.stand_in.storage_of(self.container_name)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            storage.upload_blob(f"{start}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        self._models[name, version] = f"{self.url}/{start}"

    def discovery(self) -> dict[str, Any]:
        uri = f"https://{REGION}/"
        return {
            "registryName": self.name,
            "primaryRegion": "eastus",
            "primaryRegionResourceProviderUri": uri,
            "registryFqdns": {"eastus": {"uri": uri}},
            "subscriptionId": self.stand_in.tenant,
            "resourceGroup": "registries",
            "resourceId": "x",
            "managedResourceId": "x",
        }

    def answer(self, rest: str) -> dict[str, Any]:
        found = VERSION.fullmatch(rest)
        if not found:
            raise Refused(404, "NotFound", f"The stand-in's registry has nothing at {rest}")
        kind, name, version = found[1], unquote(found[2]), unquote(found[3])
        asset = f"azureml://registries/{self.name}/models/{name}/versions/{version}"
        if (name, version) not in self._models:
            raise Refused(404, "UserError", f"Could not find asset with ID: {asset}")
        if kind == "datarefs":
            credential = {"credentialType": "SAS", "sasUri": f"{self.url}?{self._sas()}"}
            return {"blobReferenceForConsumption": {"blobUri": self.url, "credential": credential}}
        properties = {"modelType": "custom_model", "modelUri": self._models[name, version], "description": "a model"}
        properties |= {"tags": {}, "properties": {}, "flavors": {}, "isArchived": False, "isAnonymous": False}
        return {"id": asset, "name": version, "type": "x", "properties": properties, "systemData": system_data()}

    def _sas(self) -> str:
        from azure.storage.blob import generate_container_sas

        expiry = datetime.now(UTC) + timedelta(seconds=self.sas_seconds)
        account, key = self.stand_in.account, self.stand_in.account_key
        token = generate_container_sas(account, self.container_name, key, permission="rl", expiry=expiry)
        signature = dict(part.split("=", 1) for part in token.split("&"))["sig"]
        self.stand_in.secrets |= {signature, unquote(signature)}
        return token
