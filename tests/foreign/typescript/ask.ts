// Asks Yocaso one question and prints the events of the answer as JSON lines: `node dist/ask.js edge|trusted TEXT`.
import { randomUUID } from "node:crypto";
import { asUser, call, onBehalfOf, Refusal, stream } from "./yocaso.js";

const print = (value: object) => console.log(JSON.stringify(value));

async function ask(way: string, text: string): Promise<void> {
  // region ask
  const [yocaso, create, send] =
    way === "trusted"
      ? [onBehalfOf(process.env.YOCASO_USER ?? ""), "CreateConversation", "StreamMessage"]
      : [asUser(process.env.YOCASO_TOKEN ?? ""), "create-conversation", "stream-message"];
  const title = { title: "From TypeScript" };
  const { conversationId } = await call<{ conversationId: string }>(yocaso, create, randomUUID(), title);
  print({ conversationId });
  for await (const event of stream(yocaso, send, randomUUID(), { conversationId, text })) print(event);
  // endregion
}

const [way = "", text = ""] = process.argv.slice(2);
try {
  await ask(way, text);
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  print({ error: { status: error.status, code: error.code, message: error.message, isTerminal: error.isTerminal } });
  process.exitCode = 1;
}
