"""What a client in Python does, with a package generated of the document. mypy holds every request and every answer against it."""

import os
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from uuid import UUID, uuid4

from httpx import Timeout
from task_processor import AuthenticatedClient
from task_processor.api.metrics import read_metrics
from task_processor.api.tasks import (
    cancel_task,
    list_tasks,
    read_task,
    retry_task,
    submit_task,
    submit_tasks,
)
from task_processor.models import (
    Metrics,
    ListTasksStatus,
    NewTask,
    Problem,
    ReadTaskView,
    TaskAccepted,
    TaskDetails,
    TaskDetailsStatus,
    TaskPage,
    TaskRecord,
    TaskResult,
)
from task_processor.types import UNSET, Unset

URL = os.environ["TASK_URL"]
client = AuthenticatedClient(base_url=URL, token=os.environ["TASK_API_KEY"], timeout=Timeout(60))


def result(task: UUID) -> str:
    """Waits until a task is done."""
    answer = read_task.sync(task, client=client, wait="30s")
    assert isinstance(answer, TaskResult), answer
    assert answer.task_id == task
    assert answer.processed_at.tzinfo is not None
    return answer.result


def submit(task: NewTask, key: str | Unset = UNSET) -> UUID:
    answer = submit_task.sync_detailed(client=client, body=task, idempotency_key=key)
    assert answer.status_code is HTTPStatus.CREATED
    assert isinstance(answer.parsed, TaskAccepted), answer.parsed
    assert answer.headers["location"] == f"/tasks/{answer.parsed.id}"
    return answer.parsed.id


# One task, and its result.
assert result(submit(NewTask(payload="Hello world!", priority=1))) == "!dlrow olleH (len=12)"

# The same request twice is one task.
key = str(uuid4())
once = NewTask(payload="once")
assert submit(once, key) == submit(once, key)

# Many tasks at once.
batch = submit_tasks.sync(client=client, body=[NewTask(payload="ab"), NewTask(payload="cd")])
assert isinstance(batch, list), batch
assert [result(task.id) for task in batch] == ["ba (len=2)", "dc (len=2)"]

# A task that waits for its time is called off.
later = submit(NewTask(payload="later", run_at=datetime.now(UTC) + timedelta(hours=1)))
cancelled = cancel_task.sync(later, client=client)
assert isinstance(cancelled, TaskDetails), cancelled
assert cancelled.status is TaskDetailsStatus.CANCELLED
refused = retry_task.sync(later, client=client)
assert isinstance(refused, Problem) and refused.status == HTTPStatus.CONFLICT, refused
whole = read_task.sync(later, client=client, view=ReadTaskView.FULL)
assert isinstance(whole, TaskRecord), whole

# A list, page by page.
listed: list[UUID] = []
cursor: str | Unset = UNSET
while True:
    page = list_tasks.sync(client=client, limit=2, cursor=cursor)
    assert isinstance(page, TaskPage), page
    listed += [task.id for task in page.tasks]
    if page.next_ is None:
        break
    cursor = page.next_
assert len(listed) == 5 and {task.id for task in batch} < set(listed)
page = list_tasks.sync(client=client, status=ListTasksStatus.CANCELLED)
assert isinstance(page, TaskPage), page
assert [task.id for task in page.tasks] == [later]

# What is wrong is said field by field.
invalid = submit_task.sync(client=client, body=NewTask(payload="x", priority=11))
assert isinstance(invalid, Problem), invalid
assert invalid.type_ == "urn:task-processor:problem:invalid-task"
assert invalid.errors and [error.field for error in invalid.errors] == ["priority"]

# Nobody gets in with another key.
stranger = AuthenticatedClient(base_url=URL, token="none")
unknown = read_task.sync_detailed(later, client=stranger)
assert unknown.status_code is HTTPStatus.UNAUTHORIZED
assert isinstance(unknown.parsed, Problem), unknown.parsed
assert unknown.parsed.type_ == "urn:task-processor:problem:unknown-api-key"

metrics = read_metrics.sync(client=client)
assert isinstance(metrics, Metrics), metrics
assert metrics.total_tasks == 4

# What this file never says at run time, mypy must refuse: of an expectation that is not met it warns.
if os.environ.get("NEVER"):
    NewTask(payload=1)  # type: ignore[arg-type]
    NewTask()  # type: ignore[call-arg]

print("as the document says")
