"""Runs a workflow that calls another app's activity, and prints its outcome.

`python -m tests.support.foreign_activity PORT ACTIVITY APP`: the gRPC port of a sidecar, its token in DAPR_API_TOKEN.
"""

import sys
from collections.abc import Generator
from typing import Any

from dapr.ext.workflow import DaprWorkflowClient, DaprWorkflowContext, WorkflowRuntime

from services.cli.stack.ports import LOOPBACK


def main(port: str, activity: str, app: str) -> None:
    """Run the workflow once."""

    def call_foreign_activity(context: DaprWorkflowContext, _: Any) -> Generator[Any, Any, Any]:
        return (yield context.call_activity(activity, input={}, app_id=app))

    runtime = WorkflowRuntime(host=LOOPBACK, port=port)
    runtime.register_workflow(call_foreign_activity)
    runtime.start()
    client = DaprWorkflowClient(host=LOOPBACK, port=port)
    instance = client.schedule_new_workflow(call_foreign_activity, input={})
    ended = client.wait_for_workflow_completion(instance, timeout_in_seconds=20)
    sys.stdout.write(str(ended and ended.to_json()))
    runtime.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
