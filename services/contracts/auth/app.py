"""The manifest of `auth`."""

from typing import Final

from services.contracts.auth.accounts import (
    ACCOUNT_SERVICE,
    ACCOUNT_WRITE,
    DELETE_ACCOUNT_WORKFLOW,
    ERASE_APP_WORKFLOW,
    RECORD_ERASURE,
)
from services.contracts.auth.audit import AUDIT_SERVICE
from services.contracts.auth.authorization import AUTHORIZATION_SERVICE
from services.contracts.auth.jobs import JOBS
from services.contracts.auth.keys import API_KEY_SERVICE, KEYS_WRITE
from services.contracts.auth.tokens import (
    ISSUE_LOCAL_TOKEN,
    JWKS_PATH,
    ROTATE_KEY,
    TOKEN_SERVICE,
)
from services.contracts.auth.topics import ACCESS_CHANGED
from services.contracts.erasure import eraser_of
from services.contracts.llm.topics import CONVERSATION_DELETED
from services.contracts.workflows.service import PURGE_WORKFLOWS, START_WORKFLOW
from services.kit.manifest import App, Secret, Server

APP: Final = App(
    id="auth",
    purpose="sign-in, tokens, API keys, authorization, sharing, audit log, erasure",
    number=11,
    services=(
        API_KEY_SERVICE,
        TOKEN_SERVICE,
        AUTHORIZATION_SERVICE,
        AUDIT_SERVICE,
        ACCOUNT_SERVICE,
    ),
    actors=("FirebaseBridgeActor",),
    workflows=(DELETE_ACCOUNT_WORKFLOW, ERASE_APP_WORKFLOW),
    activities=(RECORD_ERASURE, eraser_of("auth")),
    publishes=(ACCESS_CHANGED,),
    subscribes=(CONVERSATION_DELETED,),
    jobs=JOBS,
    calls=(START_WORKFLOW, PURGE_WORKFLOWS, ISSUE_LOCAL_TOKEN, ROTATE_KEY),
    components=("statestore", "secrets"),
    person_scopes=(KEYS_WRITE, ACCOUNT_WRITE),
    public_paths=(JWKS_PATH,),
    owns=("schema `auth`", "relationship tuples in OpenFGA"),
    variables={
        "AUTH_KEY_SECRET": Secret("authKeySecret"),
        "AUTH_OPENFGA_URL": Server("openfga"),
        "AUTH_OPENFGA_TOKEN": Secret("openfgaToken"),
    },
)
