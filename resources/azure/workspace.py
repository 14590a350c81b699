"""An Azure Machine Learning workspace: which one, who is signed in, and its default datastore."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.azure.failures import MOST_SKEW, SIGN_IN, azure_errors, clock_skew, sign_in_code, skew_in_words
from resources.azure.retries import RETRIES
from resources.errors import ConfigurationError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential
    from azure.core.rest import HttpResponse
    from azure.storage.blob import ContainerClient

MANAGEMENT = "https://management.azure.com"
EXPERIMENTAL = "azure.ai.ml._utils._experimental"  # warns of classes that only the SDK itself uses
STUDIO = "https://ml.azure.com"
VARIABLES = {
    "subscription": "AZURE_SUBSCRIPTION_ID",
    "resource_group": "AZURE_RESOURCE_GROUP",
    "workspace": "AZURE_ML_WORKSPACE",
}
DOWNLOADED = {"subscription": "subscription_id", "resource_group": "resource_group", "workspace": "workspace_name"}
DOWNLOADED_PLACES = ("config.json", ".azureml/config.json")
ABSENT = {
    "SubscriptionNotFound": "subscription",
    "InvalidSubscriptionId": "subscription",
    "ResourceGroupNotFound": "resource_group",
}


@dataclass(frozen=True)
class WorkspaceName:
    """What names a workspace."""

    subscription: str
    resource_group: str
    workspace: str

    @property
    def path(self) -> str:
        """Its path below the resource manager, and the `wsid` of its studio pages."""
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"


def find_workspace(section: Mapping[str, str | None], folder: Path) -> WorkspaceName:
    """The workspace that `section` names; what it leaves out comes from the environment, then from a downloaded file.

    section: the experiment's `azure`. The variables are AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and
    AZURE_ML_WORKSPACE; the file is the config.json that the studio offers, in `folder` or its .azureml. A
    ConfigurationError names what is missing.
    """
    downloaded = _downloaded(folder)
    found = {
        name: section.get(name) or os.environ.get(variable) or downloaded.get(DOWNLOADED[name])
        for name, variable in VARIABLES.items()
    }
    if missing := [name for name, value in found.items() if not value]:
        variables = ", ".join(VARIABLES[name] for name in missing)
        raise ConfigurationError(
            "azure",
            f"no {', no '.join(missing)}",
            f"these keys in the experiment's section azure, {variables} in the environment, or the config.json of the "
            f"workspace in {folder}",
        )
    for name, value in found.items():
        if not isinstance(value, str) or not value.isprintable() or set(value) & set("/\\?#% "):
            raise ConfigurationError(f"azure.{name}", repr(value), "a plain name")
    return WorkspaceName(**{name: str(value) for name, value in found.items()})


class AzureWorkspace:
    """One workspace, seen by whoever is signed in; nothing is asked before it is used.

    Signing in is DefaultAzureCredential's: environment, workload identity, managed identity, Azure CLI, in its order.
    """

    def __init__(self, name: WorkspaceName) -> None:
        self.name = name

    @cached_property
    def client(self) -> MLClient:
        """The SDK's client of this workspace."""
        names = self.name.subscription, self.name.resource_group, self.name.workspace
        return open_client(self.credential, *names)

    @cached_property
    def credential(self) -> TokenCredential:
        return open_credential()

    def check(self) -> None:
        """Return when who is signed in can see this workspace now; a ConfigurationError says what is in the way."""
        from azure.core.pipeline.policies import RetryPolicy
        from azure.core.rest import HttpRequest
        from azure.mgmt.core import ARMPipelineClient
        from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

        check_sign_in(self.credential)
        sign = ARMChallengeAuthenticationPolicy(self.credential, f"{MANAGEMENT}/.default")
        url = f"{MANAGEMENT}{self.name.path}?api-version=2024-04-01"
        with (
            azure_errors("azure"),
            ARMPipelineClient(MANAGEMENT, policies=[RetryPolicy(retry_total=RETRIES), sign]) as client,
        ):
            response: HttpResponse = client.send_request(HttpRequest("GET", url))
            response.read()
        self._check_answer(response)

    def container(self, datastore: str | None = None) -> ContainerClient:
        """A new client of the container of `datastore` (None: the default one), signed by what the workspace gives out.

        That is a SAS that ends within hours, so a caller asks again when it did; or, where the datastore has no
        credentials or they may not be read, the signed-in identity itself.
        """
        from azure.storage.blob import ContainerClient

        with azure_errors(f"workspace {self.name.workspace}"):
            stores = self.client.datastores
            store: Any = stores.get_default() if datastore is None else stores.get(datastore)
            kind = str(getattr(store.type, "value", store.type))
            if kind != "AzureBlob":
                raise ConfigurationError(f"the datastore {store.name}", f"the type {kind}", "blob storage")
            url = f"{store.protocol}://{store.account_name}.blob.{store.endpoint}"
            credential = self._secret(store.name) or self.credential
            return ContainerClient(url, store.container_name, credential=credential, retry_total=0)

    @cached_property
    def datastore(self) -> str:
        """The name of the default datastore."""
        with azure_errors(f"workspace {self.name.workspace}"):
            return str(self.client.datastores.get_default().name)

    def model_page(self, model: str, version: int) -> str:
        """The studio's page of a version of a model."""
        return f"{STUDIO}/model/{model}:{version}/details?wsid={self.name.path}"

    def _secret(self, datastore: str) -> Any:
        from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
        from azure.core.exceptions import HttpResponseError

        try:
            store: Any = self.client.datastores.get(datastore, include_secrets=True)
        except HttpResponseError as error:
            if error.status_code != 403:
                raise
            return None  # who may not read the secrets may still be let in by role
        credentials = store.credentials
        if sas := getattr(credentials, "sas_token", None):
            return AzureSasCredential(sas)
        if key := getattr(credentials, "account_key", None):
            return AzureNamedKeyCredential(store.account_name, key)
        return None

    def _check_answer(self, response: HttpResponse) -> None:
        skew = clock_skew(response)
        if abs(skew) > MOST_SKEW:
            what, remedy = skew_in_words(skew)
            raise ConfigurationError("azure", what, "at most five minutes", remedy)
        if response.status_code == 200:
            return
        code = _code(response)
        if response.status_code == 404:
            part = ABSENT.get(code, "workspace")
            found = f"no such {part.replace('_', ' ')}: {getattr(self.name, part)}"
            remedy = "Check the spelling, and that you are signed in to its tenant (az account show)"
            raise ConfigurationError(f"azure.{part}", found, "one that exists", remedy)
        if response.status_code in (401, 403):
            found = f"no rights on the workspace {self.name.workspace} ({response.status_code} {code})".rstrip()
            remedy = "Ask its owner for the role AzureML Data Scientist; docs/azure.md lists what is needed"
            raise ConfigurationError("azure", found, "an identity that may use it", remedy)
        found = f"the answer {response.status_code} {code}".rstrip()
        raise ConfigurationError(f"azure, workspace {self.name.workspace}", found, "200", "Try again later")


def open_credential() -> TokenCredential:
    """Who is signed in; nobody is asked before it is used."""
    be_quiet()
    from azure.identity import DefaultAzureCredential

    # On a compute cluster that has identities of its own, this one says which of them a job is.
    own = os.environ.get("DEFAULT_IDENTITY_CLIENT_ID")
    return DefaultAzureCredential(managed_identity_client_id=own) if own else DefaultAzureCredential()


def check_sign_in(credential: TokenCredential) -> None:
    """Return when somebody is signed in; a ConfigurationError says what to do."""
    from azure.core.exceptions import ClientAuthenticationError

    try:
        credential.get_token(f"{MANAGEMENT}/.default")
    except ClientAuthenticationError as error:
        code = sign_in_code(error)
        skew = clock_skew(error.response)
        if abs(skew) > MOST_SKEW or "AADSTS700024" in code:
            what, remedy = skew_in_words(skew)
            raise ConfigurationError("azure", what + code, "at most five minutes", remedy) from None
        raise ConfigurationError("azure", f"nobody signed in{code}", "a signed-in identity", SIGN_IN) from None


def open_client(credential: TokenCredential, *names: str, **options: Any) -> MLClient:
    """The SDK's client of a workspace (`names`) or of what `options` say; it sends no telemetry."""
    be_quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own schemas, no news to a user
        from azure.ai.ml import MLClient
    return MLClient(credential, *names, enable_telemetry=False, show_progress=False, **options)


def be_quiet() -> None:
    """Keep the loggers from telling what errors tell anyway, and from telling addresses with signatures at all."""
    for name, level in {
        "azure": logging.ERROR,
        EXPERIMENTAL: logging.ERROR,
        "msal": logging.ERROR,
        "urllib3": logging.INFO,
    }.items():
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, level))


def _code(response: HttpResponse) -> str:
    try:
        code = response.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return code if isinstance(code, str) and code.isalnum() else ""


def _downloaded(folder: Path) -> dict[str, Any]:
    for place in DOWNLOADED_PLACES:
        file = folder / place
        if not file.is_file():
            continue
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigurationError(str(file), f"no JSON ({error})", "the config.json of a workspace") from error
        if isinstance(document, dict) and set(DOWNLOADED.values()) <= document.keys():
            return document
    return {}
