"""A worker of an app's sidecar whose workflow asks for another app's activity; prints how that ended.

`python -m tests.support.rogue PORT ACTIVITY APP`, with the sidecar's token in DAPR_API_TOKEN.
"""

import sys
from collections.abc import Generator
from typing import Any

from dapr.ext.workflow import DaprWorkflowClient, DaprWorkflowContext, WorkflowRuntime

from services.cli.stack.ports import LOOPBACK


def main(port: str, activity: str, app: str) -> None:
    """Run it once."""

    def rogue(context: DaprWorkflowContext, _: Any) -> Generator[Any, Any, Any]:
        return (yield context.call_activity(activity, input={}, app_id=app))

    runtime = WorkflowRuntime(host=LOOPBACK, port=port)
    runtime.register_workflow(rogue, name="rogue")
    runtime.start()
    client = DaprWorkflowClient(host=LOOPBACK, port=port)
    instance = client.schedule_new_workflow(rogue, input={})
    ended = client.wait_for_workflow_completion(instance, timeout_in_seconds=20)
    sys.stdout.write(str(ended and ended.to_json()))
    runtime.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
