"""The press command: thin, calls the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from assets.experiment import open_experiment
from orchestration.answers import Json, print_json, say
from orchestration.store_commands import store_app
from resources.errors import ConfigurationError, PressError
from resources.home import press_home
from resources.telemetry import TELEMETRY_OFF

PROJECT = Path(__file__).resolve().parent.parent

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(store_app, name="store")

ExperimentName = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="name of a file in experiments/")]


def main() -> None:
    """The entry point: the exit code is 0, 1 (a stage or gate failed) or 2 (the request is wrong)."""
    try:
        app()
    except PressError as error:
        say(f"press: {error}")
        sys.exit(error.exit_code)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Ctrl-C into one message."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        message = "interrupted. What was complete is kept; the same command goes on from there"
        raise PressError(message) from interrupt


@app.command("plan")
def plan_command(
    experiment: ExperimentName = "travel",
    all_experiments: Annotated[bool, typer.Option("--all", help="every experiment")] = False,
    as_json: Json = False,
) -> None:
    """Show what is stale, why, and how long it will take."""
    from orchestration.planning import plan_all, plan_one
    from orchestration.shown import show_plan

    home = press_home()
    plans, mistakes = plan_all(home) if all_experiments else ([plan_one(home, experiment)], {})
    if as_json:
        documents = [planned.as_json() for planned in plans]
        documents += [{"experiment": name, "error": str(mistake)} for name, mistake in mistakes.items()]
        print_json({"experiments": documents} if all_experiments else documents[0])
    else:
        for planned in plans:
            show_plan(planned)
    for mistake in mistakes.values():
        say(f"press: {mistake}")
    raise typer.Exit(max((mistake.exit_code for mistake in mistakes.values()), default=0))


@app.command("run")
def run_command(
    experiment: ExperimentName = "travel",
    select: Annotated[
        list[str] | None, typer.Option(help="bring only this stage (and what it is made from) up to date")
    ] = None,
    force: Annotated[list[str] | None, typer.Option(help="compute this stage even though the store holds it")] = None,
    no_remote: Annotated[
        bool, typer.Option("--no-remote", help="neither look in the shared store nor push there")
    ] = False,
    push: Annotated[bool, typer.Option("--push", help="push to the shared store what is computed")] = False,
    as_json: Json = False,
) -> None:
    """Run what is stale and nothing else."""
    if push and no_remote:
        raise ConfigurationError("press run", "--push and --no-remote", "one of them")
    opened = open_experiment(experiment)
    from orchestration.remotes import Remotes
    from orchestration.run import run
    from orchestration.terminal import ShownTerminal

    forced, home = tuple(force or ()), press_home()
    remotes = Remotes(home, use=not no_remote, push=push)
    if push:
        remotes.named(opened)
    with _interruptible():
        report = run(
            opened, home, ShownTerminal(forced), tuple(select or ()), forced, sys.stderr.isatty(), remotes=remotes
        )
    if as_json:
        print_json(report.as_json())
    else:
        from resources.store.sizes import format_size

        say(f"{report.experiment}: {report.seconds:.1f} s")
        if report.saved_bytes:
            say(f"not spent: {report.saved_seconds:.1f} s, {format_size(report.saved_bytes)}")
    for stage in report.stages:
        if stage.error:
            say(f"press: {stage.error}")
            break
    raise typer.Exit(report.exit_code)


@app.command("savings")
def savings_command(
    experiment: Annotated[str | None, typer.Argument(metavar="[EXPERIMENT]", help="all where absent")] = None,
    as_json: Json = False,
) -> None:
    """Show the seconds and bytes that reruns did not spend, over all runs."""
    from orchestration.savings import Savings, totals
    from orchestration.shown import show_savings

    rows = Savings(press_home()).sums(experiment)
    if as_json:
        print_json({"total": totals(rows), "stages": rows})
    else:
        show_savings(rows)


@app.command("chat")
def chat_command(
    experiment: ExperimentName,
    prompt: Annotated[str | None, typer.Argument(help="what to ask; without it, ask line by line")] = None,
    adapter: Annotated[
        str | None, typer.Option(help="adapter to answer with; the experiment's own where absent")
    ] = None,
    no_adapter: Annotated[bool, typer.Option("--no-adapter", help="answer with the base model alone")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest answer")] = 160,
    as_json: Json = False,
) -> None:
    """Ask the onnx_model of an experiment."""
    if adapter and no_adapter:
        raise ConfigurationError("press chat", "--adapter and --no-adapter", "one of them")
    from orchestration.chat import answer_as_json, ask, open_model

    model, chosen = open_model(open_experiment(experiment), press_home(), adapter, no_adapter)
    prompts = [prompt] if prompt is not None else _lines()
    with _interruptible():
        for one in prompts:
            answer = ask(model, one, max_new_tokens, shown=not as_json)
            if as_json:
                print_json(answer_as_json(answer, chosen))


@app.command("dev")
def dev_command(port: Annotated[int, typer.Option(help="port on 127.0.0.1")] = 3000) -> None:
    """Open the Dagster UI on this project."""
    from orchestration.gpu_pool import prepare_instance
    from orchestration.history import dagster_home

    home = press_home()
    prepare_instance(home)
    environment = os.environ | {
        "PRESS_HOME": str(home),
        "DAGSTER_HOME": str(dagster_home(home)),
        **TELEMETRY_OFF,
        "PYTHONWARNINGS": "ignore",
    }
    command = [str(Path(sys.executable).parent / "dagster"), "dev", "-w", str(PROJECT / "workspace.yaml")]
    child = subprocess.Popen([*command, "-h", "127.0.0.1", "-p", str(port)], env=environment)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: child.send_signal(signal.SIGINT))
    raise typer.Exit(child.wait())


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if line:
            yield line


if __name__ == "__main__":
    main()
