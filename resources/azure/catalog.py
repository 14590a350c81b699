"""Models as Azure Machine Learning keeps them: of a registry such as the catalog's `azureml`, and of a workspace.

A version of an asset points to blobs that never change, so it is named by its registry or workspace, name and version.
The SDK's own download holds whole files in memory, checks nothing and begins anew after a failure; here files come in
checked pieces, and a second call goes on from where the first ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from resources.azure.container import Container, ForeignBlob
from resources.azure.failures import azure_errors, error_code
from resources.azure.pieces import fetch_pieces
from resources.azure.workspace import (
    AzureWorkspace,
    WorkspaceName,
    check_sign_in,
    find_workspace,
    open_client,
    open_credential,
)
from resources.errors import ConfigurationError, StageError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.storage.blob import ContainerClient

ACCEPTED = (
    "azureml://registries/REGISTRY/models/NAME/versions/VERSION, azureml:NAME:VERSION of the workspace in azure, or "
    "azureml://subscriptions/…/resourceGroups/…/workspaces/…/models/NAME/versions/VERSION"
)
NAME, VERSION = r"(?P<name>[\w.-]+)", r"(?P<version>[\w.-]+)"
FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        rf"azureml://registries/(?P<registry>[\w.-]+)/models/{NAME}/versions/{VERSION}",
        rf"azureml:{NAME}:{VERSION}",
        r"azureml:(?://?)subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<resource_group>[^/]+)/"
        rf"(?:providers/Microsoft\.MachineLearningServices/)?workspaces/(?P<workspace>[^/]+)/models/{NAME}/"
        rf"versions/{VERSION}",
    )
)
# What a version of a workspace's model points to; a registry's points to a blob's address.
DATASTORE_PATH = re.compile(r"azureml://(?:.*/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.+)")
DATA_REFERENCES = "2021-10-01-dataplanepreview"  # the version that the SDK's own download asks for


@dataclass(frozen=True)
class ModelName:
    """What names a version of a model: in `registry`, or in `workspace` where that is None."""

    registry: str | None
    workspace: WorkspaceName | None
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version} of {self.registry or self._workspace.workspace}"

    @property
    def identity(self) -> str:
        """What the model is, wherever it is asked from; Azure takes no account of case in its names."""
        if self.registry is not None:
            return f"azureml registry {self.registry.lower()} {self.name}:{self.version}"
        return f"azureml workspace {self._workspace.path.lower()} {self.name}:{self.version}"

    @property
    def _workspace(self) -> WorkspaceName:
        assert self.workspace is not None, "a model is named in a registry or in a workspace"
        return self.workspace


@dataclass(frozen=True)
class ModelFiles:
    """The blobs of a version of a model: `paths` says each one's path below the model's own folder."""

    container: Container
    paths: Mapping[str, ForeignBlob]


def find_model(model: str, section: Mapping[str, str | None], folder: Path, place: str) -> ModelName:
    """What `model` names, in one of the forms that azure-ai-ml writes; asks nobody.

    section and folder say which workspace azureml:NAME:VERSION means (see find_workspace).
    """
    found = next((match for form in FORMS if (match := form.fullmatch(model))), None)
    if found is None:
        remedy = "A label can move to another version: name the version" if re.search(r"@|/labels/", model) else ""
        raise ConfigurationError(place, model, ACCEPTED, remedy)
    names = found.groupdict()
    registry = names.get("registry")
    workspace = None
    if registry is None:
        named = {key: names[key] for key in ("subscription", "resource_group", "workspace") if key in names}
        workspace = find_workspace(named or section, folder)
    return ModelName(registry, workspace, names["name"], names["version"])


def open_model(model: ModelName, place: str) -> ModelFiles:
    """The files of `model`; a ConfigurationError at `place` when it is not there or may not be read."""
    return _of_registry(model, place) if model.registry is not None else _of_workspace(model, place)


def download(files: ModelFiles, wanted: Mapping[str, str], folder: Path, tell: Callable[[int, int], None]) -> None:
    """Leave the `wanted` files (file name → path in the model) in `folder`, checked; goes on where a call before ended.

    tell: gets the bytes that are there and those that there will be. `folder` holds half files until this returns.
    """
    total = sum(files.paths[path].size for path in wanted.values())
    before = 0
    for name, path in wanted.items():
        blob = files.paths[path]
        fetch_pieces(files.container, blob, folder / name, lambda done, before=before: tell(before + done, total))
        before += blob.size


def _of_registry(model: ModelName, place: str) -> ModelFiles:
    credential = open_credential()
    check_sign_in(credential)
    client, uri = _ask(model, place, lambda: open_client(credential, registry_name=model.registry))
    _, _, path = _split_address(uri, place)

    def opened() -> ContainerClient:
        from azure.storage.blob import ContainerClient

        with _model_errors(model, place):
            address = _signed_address(client, model, uri)
        # A registry keeps copies in several regions; the address says which one is near.
        host, container, _ = _split_address(address.partition("?")[0], place)
        signature = address.partition("?")[2] or None
        return ContainerClient(f"https://{host}", container, credential=signature, retry_total=0)

    return _files(Container(opened), path, place)


def _of_workspace(model: ModelName, place: str) -> ModelFiles:
    assert model.workspace is not None, "a model is named in a registry or in a workspace"
    workspace = AzureWorkspace(model.workspace)
    workspace.check()
    _, uri = _ask(model, place, lambda: workspace.client)
    found = DATASTORE_PATH.fullmatch(uri)
    if found is None:
        raise ConfigurationError(place, f"{model}, whose files lie in {uri}", "a model whose files lie in a datastore")
    return _files(Container(lambda: workspace.container(found["datastore"])), found["path"], place)


def _ask(model: ModelName, place: str, open_it: Callable[[], MLClient]) -> tuple[MLClient, str]:
    """The SDK's client, and where it says that the model's files lie."""
    with _model_errors(model, place):
        client = open_it()
        return client, str(client.models.get(model.name, model.version).path)


@contextmanager
def _model_errors(model: ModelName, place: str) -> Iterator[None]:
    """Tell what the user can change about it as a ConfigurationError, everything else as a StageError."""
    from azure.core.exceptions import HttpResponseError

    with azure_errors(place):
        try:
            yield
        except HttpResponseError as error:
            if error.status_code == 404:
                remedy = "Look it up with az ml model list, or in the studio's catalog"
                raise ConfigurationError(place, f"no such model: {model}", "one that exists", remedy) from None
            if error.status_code in (401, 403):
                found = f"no rights on {model} ({error.status_code} {error_code(error)})".replace(" )", ")")
                remedy = "Ask its owner for the role AzureML Data Scientist or AzureML Registry User"
                raise ConfigurationError(place, found, "an identity that may read it", remedy) from None
            raise


def _signed_address(client: MLClient, model: ModelName, uri: str) -> str:
    """The address of the model's container with a signature that opens it for a while.

    The SDK has no public call for it; this is the request that its `models.download` makes.
    """
    from azure.core.rest import HttpRequest

    service: Any = client.models._registry_service_client
    group = f"/subscriptions/{client.subscription_id}/resourceGroups/{client.resource_group_name}"
    registry = f"{group}/providers/Microsoft.MachineLearningServices/registries/{model.registry}"
    asset = f"azureml://registries/{model.registry}/models/{model.name}/versions/{model.version}"
    response = service.send_request(
        HttpRequest(
            "POST",
            f"{registry}/datarefs/{model.name}/versions/{model.version}",
            params={"api-version": DATA_REFERENCES},
            json={"assetId": asset, "blobUri": uri},
        )
    )
    response.raise_for_status()
    reference = response.json()["blobReferenceForConsumption"]
    return str((reference.get("credential") or {}).get("sasUri") or reference["blobUri"])


def _split_address(uri: str, place: str) -> tuple[str, str, str]:
    """The host, the container and the path of a blob's address."""
    parts = urlsplit(uri)
    container, _, path = unquote(parts.path).lstrip("/").partition("/")
    if parts.scheme != "https" or not parts.netloc or not container:
        raise ConfigurationError(place, f"a model in {uri}", "a model whose files lie in blob storage")
    return parts.netloc, container, path


def _files(container: Container, path: str, place: str) -> ModelFiles:
    """The blobs below `path`, or the one that it names."""
    start = path.strip("/")
    blobs = container.list_foreign(f"{start}/" if start else "") or container.list_foreign(start)
    paths = {_below(blob.name, start): blob for blob in blobs}
    if strange := [name for name in paths if ".." in name.split("/") or "\\" in name or name.startswith("/")]:
        raise StageError(place, f"the path {strange[0]!r} in it leads elsewhere", "Report it to the model's owner")
    return ModelFiles(container, paths)


def _below(name: str, start: str) -> str:
    return name.removeprefix(start).lstrip("/") or name.rpartition("/")[2]
