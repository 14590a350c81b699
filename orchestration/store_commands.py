"""press store: look into the artifact store, verify, repair, shrink and share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.answers import Json, print_json, say
from resources.errors import ConfigurationError
from resources.home import press_home

if TYPE_CHECKING:
    from orchestration.sharing import Shared
    from resources.azure.shared_store import SharedStore

store_app = typer.Typer(no_args_is_help=True, help="Look into the artifact store.")


@store_app.command("ls")
def store_ls(as_json: Json = False) -> None:
    """List the artifacts in the store, newest first."""
    from orchestration.shown import show_entries
    from resources.store.store import Store

    store = Store(press_home())
    rows = [
        {
            "recipe": entry.ingredients.get("recipe"),
            "digest": entry.digest,
            "key": entry.key_id,
            "experiment": entry.provenance.get("experiment"),
            "bytes": store.manifest(entry.digest).bytes,
            "seconds": entry.seconds,
            "built_at": entry.built_at,
        }
        for entry in sorted(store.entries(), key=lambda entry: entry.built_at, reverse=True)
    ]
    if as_json:
        print_json({"artifacts": rows})
    else:
        show_entries(rows)


@store_app.command("verify")
def store_verify(as_json: Json = False) -> None:
    """Read every byte in the store and report what is damaged; exit code 1 if anything is."""
    from resources.store.store import Store

    found = Store(press_home()).verify()
    if as_json:
        print_json(asdict(found))
    else:
        say(f"{found.artifacts} artifacts, {found.blobs} blobs, {found.bytes:,} bytes, {len(found.damaged)} damaged")
        for damage in found.damaged:
            say(f"  {damage}")
    raise typer.Exit(1 if found.damaged else 0)


@store_app.command("repair")
def store_repair(as_json: Json = False) -> None:
    """Drop what cannot be trusted and say what will be built again."""
    from resources.store.store import Store

    done = Store(press_home()).repair()
    if as_json:
        print_json(asdict(done))
    else:
        say(f"{len(done.mended)} mended, {len(done.dropped)} dropped")
        for lost in done.rebuild:
            say(f"  {lost['stage']} {lost['digest'][:12]} must be built again, which took {lost['seconds']:.1f} s")


@store_app.command("gc")
def store_gc(
    max_size: Annotated[str, typer.Option(metavar="SIZE", help="what the store may hold, such as 20GB")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be freed and free nothing")] = False,
    as_json: Json = False,
) -> None:
    """Free what was used least recently; never what a registered model, a run or a pinned experiment needs."""
    from orchestration.needed import hold_needed
    from orchestration.shown import show_collected
    from resources.store.sizes import parse_size
    from resources.store.store import Store

    home, size = press_home(), parse_size(max_size, "--max-size")
    store = Store(home)
    with hold_needed(home, store) as needed:
        done = store.gc(size, needed.digests, used_since=needed.used_since, dry_run=dry_run)
    if as_json:
        print_json(asdict(done))
    else:
        show_collected(done)


@store_app.command("push")
def store_push(
    experiment: Annotated[str, typer.Argument(metavar="[EXPERIMENT]")] = "travel",
    all_experiments: Annotated[bool, typer.Option("--all", help="every experiment with a shared store")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="read what is there already and compare it")] = False,
    as_json: Json = False,
) -> None:
    """Send what an experiment is made of now to its shared store; what is there already is not sent again."""
    from assets.experiment import list_experiments, open_experiment
    from orchestration.remotes import Remotes
    from orchestration.sharing import push_experiment
    from resources.store.store import Store

    home = press_home()
    remotes, documents = Remotes(home), []
    for name in list_experiments() if all_experiments else [experiment]:
        opened = open_experiment(name)
        if all_experiments and opened.store.remote is None:
            continue
        remote = remotes.named(opened)
        say(f"{name} → {remote.place}")
        shared = _show_each(push_experiment(opened, Store(home), remote, verify), remote)
        documents.append(_document(name, remote.place, shared))
    if all_experiments and not documents:
        raise ConfigurationError("--all", "no experiment with store.remote", "at least one")
    if as_json:
        print_json({"experiments": documents} if all_experiments else documents[0])


@store_app.command("pull")
def store_pull(experiment: Annotated[str, typer.Argument()], as_json: Json = False) -> None:
    """Bring what an experiment is made of now from its shared store; exit code 1 when that lacks a stage."""
    from assets.experiment import open_experiment
    from orchestration.remotes import Remotes
    from orchestration.sharing import pull_experiment
    from resources.store.store import Store

    home, opened = press_home(), open_experiment(experiment)
    remote = Remotes(home).named(opened)
    say(f"{experiment} ← {remote.place}")
    shared = _show_each(pull_experiment(opened, Store(home), remote), remote)
    if as_json:
        print_json(_document(experiment, remote.place, shared))
    if missing := [one.recipe for one in shared if one.outcome == "missing"]:
        say(f"press: the shared store lacks {', '.join(missing)}; press run {experiment} computes what is missing")
        raise typer.Exit(1)


def _show_each(moving: Iterator[Shared], remote: SharedStore) -> list[Shared]:
    """What `moving` yields, with a line on standard error for each as it comes, and in a terminal a count of bytes."""
    from rich.console import Console

    from resources.store.sizes import format_size

    done: list[Shared] = []
    moved = 0
    with Console(stderr=True).status("asking") as status:

        def count(size: int) -> None:
            nonlocal moved
            moved += size  # shown only: a lost update is no harm
            status.update(f"{format_size(moved)} moved")

        remote.watch(count)
        for one in moving:
            sizes = f"{format_size(one.moved):>10} of {format_size(one.bytes):<10}" if one.digest else " " * 24
            say(f"  {one.recipe:<17}{one.outcome:<10}{sizes}  {one.note}".rstrip())
            done.append(one)
    say(f"{format_size(sum(one.moved for one in done))} moved")
    return done


def _document(experiment: str, place: str, shared: list[Shared]) -> dict[str, Any]:
    moved = sum(one.moved for one in shared)
    artifacts = [one.as_json() for one in shared]
    return {"experiment": experiment, "remote": place, "moved": moved, "artifacts": artifacts}
