"""`yocaso`: the local platform in one command. Heavy imports wait until a command needs them."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Run Yocaso on this machine and talk to it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich alone doubles the time of --help
)

StateOption = Annotated[
    Path, typer.Option("--state", envvar="YOCASO_STATE", help="Folder for data, logs and secrets.")
]
FileOption = Annotated[
    Path, typer.Option("--file", envvar="YOCASO_DAPR_YAML", help="The multi-app run template.")
]
OffsetOption = Annotated[
    int, typer.Option("--port-offset", envvar="YOCASO_PORT_OFFSET", help="Added to every port.")
]


@app.command()
def up(
    state: StateOption = Path(".yocaso"),
    file: FileOption = Path("dapr.yaml"),
    port_offset: OffsetOption = 0,
    port: Annotated[
        int | None,
        typer.Option("--port", envvar="EDGE_PORT", help="The edge's port; 8080 unless set."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No log lines; they are in files.")
    ] = False,
    secure: Annotated[
        bool,
        typer.Option(
            "--secure",
            envvar="YOCASO_SECURE",
            help="Sidecars speak mTLS and hold to the access policies, as on Kubernetes.",
        ),
    ] = False,
) -> None:
    """Start everything, wait until a turn is answered, and stay until Ctrl-C."""
    from services.cli.up import Options, run_stack

    options = Options(
        state, file, port_offset, apps=True, edge_port=port, quiet=quiet, secure=secure
    )
    raise typer.Exit(run_stack(options))


@app.command()
def infra(
    state: StateOption = Path(".yocaso"),
    file: FileOption = Path("dapr.yaml"),
    port_offset: OffsetOption = 0,
) -> None:
    """Start only the servers, for `dapr run -f dapr.yaml`, and stay until Ctrl-C."""
    from services.cli.up import Options, run_stack

    raise typer.Exit(run_stack(Options(state, file, port_offset, apps=False)))


@app.command()
def doctor(
    state: StateOption = Path(".yocaso"),
    file: FileOption = Path("dapr.yaml"),
    port_offset: OffsetOption = 0,
) -> None:
    """Say what is missing on this machine and how to get it."""
    from services.cli.doctor import examine

    raise typer.Exit(examine(state, file, port_offset))


@app.command()
def token(
    user: Annotated[str, typer.Option("--user", help="The user's id.")],
    email: Annotated[str, typer.Option("--email", help="The user's address.")],
    scope: Annotated[list[str] | None, typer.Option("--scope", help="May be repeated.")] = None,
    hours: Annotated[
        float, typer.Option("--hours", min=0.02, max=168, help="How long it is valid.")
    ] = 24.0,
    state: StateOption = Path(".yocaso"),
) -> None:
    """Print a bearer token for a local user."""
    from services.cli.tokens import print_token

    raise typer.Exit(print_token(state, user, email, scope or [], round(hours * 3600)))


@app.command()
def chat(
    conversation: Annotated[
        str | None, typer.Option("--conversation", "-c", help="Go on with this conversation.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", envvar="YOCASO_URL", help="The edge; the running stack's unless set."
        ),
    ] = None,
    bearer: Annotated[
        str | None,
        typer.Option(
            "--token", envvar="YOCASO_TOKEN", help="A bearer token; a local one unless set."
        ),
    ] = None,
    user: Annotated[str, typer.Option("--user", help="Whose token to issue.")] = os.environ.get(
        "USER", "me"
    ),
    model: Annotated[str | None, typer.Option("--model", help="The model to ask.")] = None,
    state: StateOption = Path(".yocaso"),
) -> None:
    """Chat in the terminal. /help lists what can be typed."""
    from services.cli.chat.main import ChatOptions, run_chat

    raise typer.Exit(run_chat(ChatOptions(state, conversation, url, bearer, user, model)))


if __name__ == "__main__":
    app()
