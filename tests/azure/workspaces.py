"""Workspaces as the control plane shows them: documents in the form of the resource manager."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from tests.azure.control_plane import PROVIDER, Refused

if TYPE_CHECKING:
    from tests.azure.jobs import StandInJobs
    from tests.azure.stand_in import StandIn

URI_FIELDS = {"models": "modelUri", "codes": "codeUri", "data": "dataUri"}


@dataclass
class StandInWorkspace:
    """One workspace with a container of its own behind its default datastore.

    credentials: how the datastore is read: by SAS, by account key, or (None) by who is signed in.
    sas_seconds: how long a SAS is good for.
    """

    stand_in: StandIn
    name: str
    credentials: Literal["Sas", "AccountKey", "None"] = "Sas"
    sas_seconds: float = 3600
    _assets: dict[tuple[str, str], dict[str, dict[str, Any]]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    @cached_property
    def compute(self) -> StandInJobs:
        """Its clusters and jobs."""
        from tests.azure.jobs import StandInJobs

        return StandInJobs(self)

    def add_environment(self, name: str, version: str) -> None:
        properties = {"image": "olive-press", "environmentType": "UserCreated", "osType": "Linux"}
        self.put_version("environments", name, version, properties)

    @property
    def container_name(self) -> str:
        return f"azureml-blobstore-{self.name}"

    @property
    def path(self) -> str:
        stand_in = self.stand_in
        group = f"/subscriptions/{stand_in.subscription}/resourceGroups/{stand_in.resource_group}"
        return f"{group}{PROVIDER}/workspaces/{self.name}"

    @property
    def container_url(self) -> str:
        return f"https://{self.stand_in.account}.blob.core.windows.net/{self.container_name}"

    def document(self) -> dict[str, Any]:
        stand_in = self.stand_in
        storage = f"{self.path.partition(PROVIDER)[0]}/providers/Microsoft.Storage/storageAccounts/{stand_in.account}"
        properties = {
            "workspaceId": stand_in.tenant,
            "friendlyName": self.name,
            "provisioningState": "Succeeded",
            "storageAccount": storage,
            "discoveryUrl": "https://eastus.api.azureml.ms/discovery",
            "mlFlowTrackingUri": f"azureml://eastus.api.azureml.ms/mlflow/v1.0{self.path}",
        }
        identity = {"type": "SystemAssigned", "principalId": stand_in.tenant, "tenantId": stand_in.tenant}
        kind = {"type": "Microsoft.MachineLearningServices/workspaces", "kind": "Default", "location": "eastus"}
        named = {"id": self.path, "name": self.name, "tags": {}}
        return {**named, **kind, "identity": identity, "properties": properties}

    def datastore(self) -> dict[str, Any]:
        properties = {
            "datastoreType": "AzureBlob",
            "accountName": self.stand_in.account,
            "containerName": self.container_name,
            "endpoint": "core.windows.net",
            "protocol": "https",
            "isDefault": True,
            "serviceDataAccessAuthIdentity": "None",
            "credentials": {"credentialsType": self.credentials},
            "tags": {},
            "properties": {},
        }
        path = f"{self.path}/datastores/workspaceblobstore"
        named = {"id": path, "name": "workspaceblobstore", "type": "x", "systemData": system_data()}
        return {**named, "properties": properties}

    def secrets(self, expirable: bool) -> dict[str, Any]:
        if self.credentials == "Sas" or expirable:
            return {"secretsType": "Sas", "sasToken": self.sas()}
        return {"secretsType": "AccountKey", "key": self.stand_in.account_key}

    def sas(self, permission: str = "racwdl") -> str:
        """A SAS of the container, good for `sas_seconds`."""
        from azure.storage.blob import generate_container_sas

        expiry = datetime.now(UTC) + timedelta(seconds=self.sas_seconds)
        account, key = self.stand_in.account, self.stand_in.account_key
        token = generate_container_sas(account, self.container_name, key, permission=permission, expiry=expiry)
        signature = dict(part.split("=", 1) for part in token.split("&"))["sig"]
        self.stand_in.secrets |= {signature, unquote(signature)}
        return token

    def pending_upload(self) -> dict[str, Any]:
        credential = {"credentialType": "SAS", "sasUri": f"{self.container_url}?{self.sas()}"}
        reference = {"blobUri": self.container_url, "storageAccountArmId": "x", "credential": credential}
        return {"blobReferenceForConsumption": reference, "pendingUploadType": "TemporaryBlobReference"}

    def container(self, kind: str, name: str) -> dict[str, Any]:
        with self._lock:
            versions = self._assets.get((kind, name))
            if not versions:
                raise Refused(404, "UserError", f"Could not find container: {name}.")
            following = str(max((int(version) for version in versions if version.isdecimal()), default=0) + 1)
        properties = {"isArchived": False, "nextVersion": following, "latestVersion": next(reversed(versions))}
        properties |= {"tags": {}, "properties": {}}
        named = {"id": f"{self.path}/{kind}/{name}", "name": name, "type": "x", "systemData": system_data()}
        return {**named, "properties": properties}

    def versions(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Newest first."""
        with self._lock:
            return [*reversed(self._assets.get((kind, name), {}).values())]

    def version(self, kind: str, name: str, version: str) -> dict[str, Any]:
        with self._lock:
            try:
                return self._assets[kind, name][version]
            except KeyError:
                raise Refused(404, "UserError", f"Could not find asset with ID: {kind}/{name}/{version}") from None

    def delete_version(self, kind: str, name: str, version: str) -> None:
        with self._lock:
            del self._assets[kind, name][version]

    def put_version(self, kind: str, name: str, version: str, properties: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Registering a version again replaces its tags; its content is what it was or the request is refused."""
        filled = {**properties, "isArchived": False, "isAnonymous": False}
        for absent, value in {"flavors": {}, "tags": {}, "properties": {}}.items():
            filled[absent] = filled.get(absent) or value
        with self._lock:
            versions = self._assets.setdefault((kind, name), {})
            before = versions.get(version)
            field_name = URI_FIELDS.get(kind, "image")
            if before and before["properties"].get(field_name) != filled.get(field_name):
                raise Refused(400, "UserError", "Asset paths cannot be updated.")
            document = {
                "id": f"{self.path}/{kind}/{name}/versions/{version}",
                "name": version,
                "type": f"Microsoft.MachineLearningServices/workspaces/{kind}/versions",
                "properties": filled,
                "systemData": before["systemData"] if before else system_data(),
            }
            versions[version] = document
            return (200 if before else 201), document


def system_data() -> dict[str, str]:
    now = datetime.now(UTC).isoformat()
    by = {"createdBy": "stand-in", "createdByType": "User", "lastModifiedBy": "stand-in"}
    return {**by, "createdAt": now, "lastModifiedAt": now, "lastModifiedByType": "User"}
