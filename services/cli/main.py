"""Commands and options of `yocaso`; a command imports its code when it runs, so that `--help` is fast."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Run Yocaso on this machine and use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich doubles the time of --help
)

StateOption = Annotated[
    Path, typer.Option("--state", envvar="YOCASO_STATE", help="Folder for data, logs and secrets.")
]
FileOption = Annotated[
    Path, typer.Option("--file", envvar="YOCASO_DAPR_YAML", help="The Dapr multi-app run template.")
]
OffsetOption = Annotated[
    int, typer.Option("--port-offset", envvar="YOCASO_PORT_OFFSET", help="Added to every port.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a line, with the logs as in files.")
]


@app.command()
def up(
    state: StateOption = Path(".yocaso"),
    file: FileOption = Path("dapr.yaml"),
    port_offset: OffsetOption = 0,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            envvar="EDGE_PORT",
            help="Port of the edge; default: its port in the template.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not print log lines; they are also in files.")
    ] = False,
    secure: Annotated[
        bool,
        typer.Option(
            "--secure",
            envvar="YOCASO_SECURE",
            help="Enable mTLS between sidecars and the access policies, as on Kubernetes.",
        ),
    ] = False,
    as_json: JsonOption = False,
    model_seconds: Annotated[
        float,
        typer.Option(
            "--model-seconds",
            min=0,
            help="Seconds to wait for the model's first answer; then the platform runs without it.",
        ),
    ] = 20.0,
) -> None:
    """Start the platform and run it until Ctrl-C. It is ready once a turn is answered."""
    from services.cli.up import Options, run_stack

    options = Options(
        state,
        file,
        port_offset,
        apps=True,
        edge_port=port,
        quiet=quiet,
        secure=secure,
        as_json=as_json,
        model_seconds=model_seconds,
    )
    raise typer.Exit(run_stack(options))


@app.command()
def infra(
    state: StateOption = Path(".yocaso"),
    file: FileOption = Path("dapr.yaml"),
    port_offset: OffsetOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Start only the servers, for `dapr run`. Ctrl-C stops them."""
    from services.cli.up import Options, run_stack

    options = Options(state, file, port_offset, apps=False, as_json=as_json)
    raise typer.Exit(run_stack(options))


@app.command()
def dev(
    name: Annotated[str, typer.Argument(metavar="APP", help="App-id of a Python app.")],
    state: StateOption = Path(".yocaso"),
) -> None:
    """Run one app of a running stack here. It restarts when its code changes."""
    from services.cli.dev import run_dev

    raise typer.Exit(run_dev(name, state))


@app.command()
def sidecar(
    name: Annotated[str, typer.Argument(metavar="APP", help="App-id of your app.")],
    http_port: Annotated[
        int,
        typer.Option(
            "--http-port",
            envvar="DAPR_HTTP_PORT",
            min=1024,
            max=32767 - 6000,
            help="Port of the sidecar; gRPC + 1000, internal gRPC + 2000, metrics + 6000.",
        ),
    ] = 3600,
    app_port: Annotated[
        int | None, typer.Option("--app-port", help="Port of your app, if it is to be called.")
    ] = None,
    state: StateOption = Path(".yocaso"),
) -> None:
    """Run the Dapr sidecar of an app of yours, which then can call the running platform."""
    from services.cli.sidecar import run_sidecar

    run_sidecar(state, name, http_port, app_port)


@app.command()
def doctor(
    state: StateOption = Path(".yocaso"),
    file: FileOption = Path("dapr.yaml"),
    port_offset: OffsetOption = 0,
) -> None:
    """Check this machine's requirements and how to meet missing ones."""
    from services.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(state, file, port_offset))


@app.command()
def token(
    user: Annotated[str, typer.Option("--user", help="The user's id.")],
    email: Annotated[str, typer.Option("--email", help="The user's email address.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", help="A scope of the token; repeatable; default: all scopes of a user."
        ),
    ] = None,
    hours: Annotated[
        float, typer.Option("--hours", min=0.02, max=168, help="Hours until the token expires.")
    ] = 24.0,
    state: StateOption = Path(".yocaso"),
) -> None:
    """Print a bearer token of a local user."""
    from services.cli.tokens import print_token

    raise typer.Exit(print_token(state, user, email, scope or [], round(hours * 3600)))


@app.command()
def chat(
    conversation: Annotated[
        str | None,
        typer.Option(
            "--conversation", "-c", help="Continue this conversation; default: a new one."
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", envvar="YOCASO_URL", help="URL of the edge; default: the running stack's."
        ),
    ] = None,
    bearer: Annotated[
        str | None,
        typer.Option(
            "--token", envvar="YOCASO_TOKEN", help="A bearer token; default: a new one of --user."
        ),
    ] = None,
    user: Annotated[
        str, typer.Option("--user", help="The user of the issued token.")
    ] = os.environ.get("USER", "me"),
    model: Annotated[
        str | None, typer.Option("--model", help="Model of the turns; default: the platform's.")
    ] = None,
    state: StateOption = Path(".yocaso"),
) -> None:
    """Chat in the terminal; /help lists the commands."""
    from services.cli.chat.main import ChatOptions, run_chat

    raise typer.Exit(run_chat(ChatOptions(state, conversation, url, bearer, user, model)))


letters = typer.Typer(help="Events that a subscription gave up.", no_args_is_help=True)
app.add_typer(letters, name="dead-letters")

LetterArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of a dead letter.")]
SubscriberOption = Annotated[
    str | None, typer.Option("--app", help="Only those of this app-id; default: of every app.")
]


@letters.command("list")
def list_dead_letters(
    app_id: SubscriberOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    state: StateOption = Path(".yocaso"),
) -> None:
    """List dead letters with their errors."""
    from services.cli.dead_letters import list_letters

    raise typer.Exit(list_letters(state, app_id, as_json=as_json))


@letters.command("show")
def show_dead_letter(letter: LetterArgument, state: StateOption = Path(".yocaso")) -> None:
    """Print a dead letter with its event."""
    from services.cli.dead_letters import show_letter

    raise typer.Exit(show_letter(state, letter))


@letters.command("redrive")
def redrive_dead_letters(
    letter: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of a dead letter; default: all.")
    ] = None,
    app_id: SubscriberOption = None,
    state: StateOption = Path(".yocaso"),
) -> None:
    """Handle dead letters again; those that fail are kept."""
    from services.cli.dead_letters import redrive_letters

    raise typer.Exit(redrive_letters(state, letter, app_id))


if __name__ == "__main__":
    app()
