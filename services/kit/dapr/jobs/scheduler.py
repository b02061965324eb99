"""Dapr's scheduler as this app's sidecar offers it; job names are those within the app."""

from datetime import datetime, timedelta
from typing import Any, Final

from dapr.proto import api_v1, common_v1
from google.protobuf.any_pb2 import Any as AnyData
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from services.kit.contract import rfc3339
from services.kit.dapr.sidecar import Sidecar, SidecarError

CALL_SECONDS: Final = 5.0
RETRY_INTERVAL: Final = timedelta(seconds=1)
"""How soon the scheduler repeats a failed delivery, without end: the app decides when to give a run up."""


class Scheduler:
    """Client of the scheduler. Failures are `SidecarError`."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    async def keep_cron(self, name: str, schedule: str) -> None:
        """Register a cron job, or change its schedule; an equal job is left as it is, with its next run."""
        wanted = api_v1.Job(name=name, schedule=schedule, failure_policy=_repeat())
        found = await self._find(name)
        if found is None or _differs(found, wanted):
            await self._put(wanted, replace=found is not None)

    async def add(self, name: str, due: datetime, data: bytes, *, replace: bool) -> bool:
        """Register a job for one time; False if there is another job of this name, and `replace` is not set."""
        wanted = api_v1.Job(
            name=name,
            due_time=rfc3339(due),
            data=AnyData(value=data),
            failure_policy=_repeat(),
        )
        try:
            await self._put(wanted, replace=replace)
        except SidecarError as error:
            if error.status is not StatusCode.ALREADY_EXISTS:
                raise
            found = await self._find(name)
            if found is None:  # it ran meanwhile
                raise
            return found.data.value == data
        return True

    async def remove(self, name: str) -> None:
        """Remove a job; a missing one is no error."""
        await self._call("DeleteJob", api_v1.DeleteJobRequest(name=name))

    async def _put(self, job: Any, *, replace: bool) -> None:
        request = api_v1.ScheduleJobRequest(job=job, overwrite=replace)
        await self._call("ScheduleJob", request)

    async def _find(self, name: str) -> Any:
        """The job; None if it is missing, for which daprd has no status of its own."""
        try:
            return (await self._call("GetJob", api_v1.GetJobRequest(name=name))).job
        except SidecarError as error:
            if error.status is StatusCode.INTERNAL:
                return None
            raise

    async def _call(self, method: str, request: Any) -> Any:
        return await self._sidecar.request(method, request, CALL_SECONDS)


def _repeat() -> Any:
    interval = Duration()
    interval.FromTimedelta(RETRY_INTERVAL)
    constant = common_v1.JobFailurePolicyConstant(interval=interval)
    return common_v1.JobFailurePolicy(constant=constant)


def _differs(found: Any, wanted: Any) -> bool:
    return (found.schedule, found.failure_policy) != (wanted.schedule, wanted.failure_policy)
