"""Azure Machine Learning as a registry: the content as blobs in the workspace, and a version that points to them.

The SDK's own upload is not used: it leaves half uploads that block every later try, and it does not verify. What was
registered is recorded under PRESS_HOME, after it succeeded, and planning trusts that record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from resources.azure.blobs import Names, fetch, publish, read_manifest
from resources.azure.container import Container
from resources.azure.failures import azure_errors
from resources.azure.workspace import AzureWorkspace
from resources.errors import ConfigurationError, StageError
from resources.registry.registry import Version
from resources.registry.version_files import VersionFiles, check_digest
from resources.store.disk import FullDisk
from resources.store.manifest import DIGEST, Manifest

if TYPE_CHECKING:
    from azure.ai.ml.entities import Model

PREFIX = "olive-press/"
LAYOUT = b"1\n"
DIGEST_PROPERTY, CARD_PROPERTY = "olive_press.digest", "olive_press.card"
LONGEST_DESCRIPTION = 5000
TRIES = 20
RECORDS = Path("registry", ".azureml")  # where no model name can lie


class Contents(Protocol):
    """Where the content comes from that is registered by its digest; the store is one."""

    def manifest(self, digest: str) -> Manifest: ...

    def open(self, digest: str) -> Path: ...


class AzureMLRegistry(VersionFiles):
    """A Registry in an Azure ML workspace, with what this machine knows of it in `home`/registry/.azureml.

    `contents` gives the files of what is registered. Methods that ask Azure raise a StageError when it refuses or
    cannot be reached.
    """

    def __init__(self, workspace: AzureWorkspace, home: Path, contents: Contents) -> None:
        name = workspace.name
        place = (name.subscription.lower(), name.resource_group.lower(), name.workspace.lower())
        super().__init__(home.absolute() / RECORDS / Path(*place))
        self._workspace = workspace
        self._contents = contents
        self._container = Container(workspace.container, PREFIX)

    def check(self) -> None:
        """Return when one can register here now, as far as is seen without registering."""
        self._workspace.check()
        digest = hashlib.sha256(LAYOUT).hexdigest()
        if not self._container.create("VERSION", LAYOUT, digest):
            found = self._container.read("VERSION", 0, 20)
            if found != LAYOUT:
                place = f"{PREFIX}VERSION in the workspace's default datastore"
                raise ConfigurationError(place, repr(found), repr(LAYOUT), "Use the Olive Press that wrote it")

    def register(self, name: str, digest: str, tags: Mapping[str, str], card: str) -> Version:
        check_digest(digest)
        with self.writing(name):
            self._learn(name)
            if known := self.by_digest(name).get(digest):
                return known
            self._publish(digest)
            card_digest = self._publish_card(card)
            return self._register(name, digest, tags, card, card_digest)

    def fetch(self, name: str, version: int, folder: Path) -> None:
        """Leave the content of a version in the new `folder`, every digest checked; whole or not there."""
        with self.writing(name):
            self._learn(name)
        found = next((one for one in self.versions(name) if one.version == version), None)
        if found is None:
            numbers = ", ".join(map(str, self.numbers(name))) or "none"
            raise ConfigurationError("registry", f"no version {version} of {name}", f"one of its versions: {numbers}")
        if folder.exists():
            raise ConfigurationError(str(folder), "something there", "a folder that does not exist yet")
        self._fetch(found.digest, folder)

    def _fetch(self, digest: str, folder: Path) -> None:
        names = _names(digest)
        manifest = read_manifest(self._container, digest, names.manifest)
        if manifest is None:
            raise StageError(f"{PREFIX}{names.manifest}", "there is no such blob", "Register the model again")
        work = folder.with_name(f".{folder.name}.{digest[:12]}.part")
        with FullDisk(str(folder), folder.parent, (work,)):
            work.mkdir(parents=True, exist_ok=True)
            fetch(self._container, manifest, work, names.file)
            work.rename(folder)

    def _learn(self, name: str) -> set[int]:
        """Make the record agree with the workspace, whoever registered there; returns all numbers that are taken."""
        recorded = {version.version: version.digest for version in self.versions(name)}
        taken: set[int] = set()
        for model in self._models(name):
            if not (model.version or "").isdecimal():
                continue
            number, properties = int(model.version or 0), model.properties or {}
            digest, card_digest = properties.get(DIGEST_PROPERTY, ""), properties.get(CARD_PROPERTY, "")
            taken.add(number)
            if DIGEST.fullmatch(digest) and recorded.pop(number, None) != digest:
                self.add(self._version(model, digest), self._card(card_digest))
        for number in recorded:  # deleted there, or replaced by something that is not ours
            self.forget(name, number)
        return taken

    def _models(self, name: str) -> list[Model]:
        from azure.ai.ml.constants import ListViewType
        from azure.core.exceptions import ResourceNotFoundError

        with azure_errors(f"model {name}"):
            try:
                return list(self._workspace.client.models.list(name=name, list_view_type=ListViewType.ALL))
            except ResourceNotFoundError:
                return []

    def _publish(self, digest: str) -> None:
        manifest, folder = self._contents.manifest(digest), self._contents.open(digest)
        publish(self._container, manifest, lambda record: folder / record.path, _names(digest))

    def _publish_card(self, card: str) -> str:
        data = card.encode()
        digest = hashlib.sha256(data).hexdigest()
        self._container.create(f"cards/{digest}.md", data, digest)
        return digest

    def _card(self, digest: str) -> str:
        name = f"cards/{digest}.md"
        found = self._container.look(name) if DIGEST.fullmatch(digest) else None
        data = self._container.read(name, 0, found.size) if found and found.size else b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise StageError(f"{PREFIX}{name}", "its bytes are not those of its digest", "Remove that blob")
        return data.decode()

    def _register(self, name: str, digest: str, tags: Mapping[str, str], card: str, card_digest: str) -> Version:
        """Take the next number; where another took it meanwhile, the one after, unless that one has this content."""
        from azure.ai.ml.entities import Model
        from azure.core.exceptions import AzureError

        for _ in range(TRIES):
            # Every try looks again first: a number is only free, and the content only new, as of this list.
            taken = self._learn(name)
            if known := self.by_digest(name).get(digest):
                return known
            number = max(taken, default=0) + 1
            model = Model(
                name=name,
                version=str(number),
                type="custom_model",
                path=f"azureml://datastores/{self._workspace.datastore}/paths/{PREFIX}trees/{digest}/",
                description=_description(card),
                tags=dict(tags),
                properties={DIGEST_PROPERTY: digest, CARD_PROPERTY: card_digest},
            )
            with azure_errors(f"model {name}:{number}"):
                try:
                    made = self._workspace.client.models.create_or_update(model)
                except AzureError:
                    if number not in self._learn(name):
                        raise
                    continue
            version = self._version(made, digest)
            self.add(version, card)
            return version
        raise StageError(f"model {name}", f"{TRIES} numbers in a row were taken by others", "Run it again")

    def _version(self, model: Any, digest: str) -> Version:
        number, created = int(model.version), model.creation_context.created_at
        page = self._workspace.model_page(model.name, number)
        return Version(model.name, number, digest, dict(model.tags or {}), _iso(created), page)


def recorded_workspaces(home: Path) -> list[VersionFiles]:
    """What `home` records of each workspace that was registered in from here."""
    return [VersionFiles(folder) for folder in sorted((home.absolute() / RECORDS).glob("*/*/*")) if folder.is_dir()]


def _names(digest: str) -> Names:
    return Names(lambda record: f"trees/{digest}/{record.path}", f"trees/{digest}.json")


def _iso(created: Any) -> str:
    return created if isinstance(created, str) else created.isoformat(timespec="seconds")


def _description(card: str) -> str:
    """The card, as far as a description may hold it."""
    return card if len(card) <= LONGEST_DESCRIPTION else card[: LONGEST_DESCRIPTION - 2].rstrip() + " …"
