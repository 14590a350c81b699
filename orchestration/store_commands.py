"""press store: look into the artifact store, verify, repair and shrink it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from orchestration.answers import Json, print_json, say
from resources.home import press_home

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
