// region client
import { CommunicationProtocolEnum, DaprClient, HttpMethod, LogLevel } from "@dapr/dapr";
import { setTimeout as pause } from "node:timers/promises";

const daprPort = process.env.DAPR_HTTP_PORT ?? "3500";
const daprApiToken = process.env.DAPR_API_TOKEN ?? "";
const dapr = new DaprClient({
  daprHost: "127.0.0.1",
  daprPort,
  daprApiToken,
  communicationProtocol: CommunicationProtocolEnum.HTTP,
  logger: { level: LogLevel.Error },
});

/** How the conversation service is called through this app's sidecar. */
export type Yocaso = { app: string; service: string; headers: Record<string, string> };

/** Calls the edge with a user's access token or an API key. */
export function asUser(credential: string): Yocaso {
  const headers = { authorization: `Bearer ${credential}` };
  return { app: "edge", service: "api/v1/llm/conversation", headers };
}

/** Calls the app llm for one of our users; Yocaso's operator has to trust our app-id. */
export function onBehalfOf(user: string): Yocaso {
  const headers = { "x-user-id": user, "x-scopes": "conversations:read conversations:write" };
  return { app: "llm", service: "yocaso.llm.v1.ConversationService", headers };
}
// endregion

// region call
/** Calls a method. The key makes the call safe to repeat. */
export async function call<Answer>(yocaso: Yocaso, method: string, key: string, request: object): Promise<Answer> {
  for (let failures = 1; ; failures++) {
    try {
      const headers = { ...yocaso.headers, "idempotency-key": key };
      const answer = await dapr.invoker
        .invoke(yocaso.app, `${yocaso.service}/${method}`, HttpMethod.POST, request, { headers })
        .catch((error: Error) => {
          throw refusalOfClient(error);
        });
      // A sidecar sends an empty 200 when the app goes away before it answers.
      if (typeof answer !== "object") throw new Refusal(200, "");
      return answer as Answer;
    } catch (error) {
      await pauseAfter(error, failures);
    }
  }
}

/** An error that Yocaso or a sidecar answered. */
export class Refusal extends Error {
  readonly code: string;
  readonly isTerminal: boolean;
  readonly retryAfterSeconds: number;

  constructor(readonly status: number, body: string) {
    const { error, errorCode, message } = parse(body);
    super(error?.message ?? message ?? "");
    this.code = error?.code ?? errorCode ?? "UNAVAILABLE";
    this.isTerminal = error?.isTerminal ?? (status >= 400 && status < 500);
    this.retryAfterSeconds = parseFloat(error?.details?.retryInfo?.retryAfter ?? "0"); // such as 1.5s
  }
}

/** The refusal in an error of Dapr's client, whose message is JSON with the status and the body. */
function refusalOfClient(error: Error): Error {
  const { status, error_msg } = parse(error.message);
  return status ? new Refusal(status, error_msg) : error;
}

function parse(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** Waits before the next attempt; throws the error if no attempt can help, or after ten in a row. */
async function pauseAfter(error: unknown, failures: number): Promise<void> {
  const refusal = error instanceof Refusal ? error : undefined;
  if (failures > 10 || refusal?.isTerminal) throw error;
  await pause(Math.max(200 * failures, 1000 * (refusal?.retryAfterSeconds ?? 0)));
}
// endregion

// region stream
export type Event = { id: string; type: string; data: string };

const LAST = new Set(["run.completed", "run.failed", "run.cancelled"]);

/** Begins a turn and yields each of its events once. After a lost connection it resumes behind the last event. */
export async function* stream(yocaso: Yocaso, method: string, key: string, request: object): AsyncGenerator<Event> {
  let after = "";
  for (let failures = 1; ; failures++) {
    let problem: unknown = new Error("the stream ended early");
    try {
      for await (const event of connect(yocaso, method, key, request, after)) {
        failures = 0;
        if (event.type === "reconnect") break;
        if (event.type === "error") throw new Refusal(200, event.data);
        yield event;
        after = event.id;
        if (LAST.has(event.type)) return;
      }
    } catch (error) {
      problem = error;
    }
    await pauseAfter(problem, failures);
  }
}

async function* connect(yocaso: Yocaso, method: string, key: string, request: object, after: string): AsyncGenerator<Event> {
  const url = `http://127.0.0.1:${daprPort}/v1.0/invoke/${yocaso.app}/method/${yocaso.service}/${method}`;
  const headers = {
    ...yocaso.headers,
    "content-type": "application/json",
    accept: "text/event-stream, application/json",
    "dapr-api-token": daprApiToken,
    "idempotency-key": key,
    ...(after && { "last-event-id": after }),
  };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(request) });
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream");
  if (!isStream || !response.body) throw new Refusal(response.status, await response.text());
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop() ?? ""; // not complete yet
    yield* blocks.map(eventOf).filter((event) => event !== undefined);
  }
}

/** The event of a block of lines; undefined for a heartbeat, a line that begins with a colon. */
function eventOf(block: string): Event | undefined {
  const fields = new Map(block.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2) as [string, string]));
  const type = fields.get("event");
  return type ? { id: fields.get("id") ?? "", type, data: fields.get("data") ?? "" } : undefined;
}
// endregion
