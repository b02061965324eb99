import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.function.Consumer;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Asks Yocaso one question and prints the events of the answer as JSON lines: {@code java Ask.java edge|trusted TEXT}. */
class Ask {
  public static void main(String[] arguments) throws Exception {
    try {
      ask(arguments[0], arguments[1]);
    } catch (Refusal refusal) {
      System.out.println(
          "{\"error\":{\"status\":%d,\"code\":\"%s\",\"isTerminal\":%b}}"
              .formatted(refusal.status, refusal.code, refusal.isTerminal));
      System.exit(1);
    }
  }

  static void ask(String way, String text) throws Exception {
    // region ask
    var trusted = way.equals("trusted");
    var yocaso =
        trusted ? Yocaso.onBehalfOf(System.getenv("YOCASO_USER")) : Yocaso.asUser(System.getenv("YOCASO_TOKEN"));
    var create = trusted ? "CreateConversation" : "create-conversation";
    var stream = trusted ? "StreamMessage" : "stream-message";

    var answer = yocaso.call(create, UUID.randomUUID().toString(), "{\"title\":\"From Java\"}");
    var conversationId = Json.field(answer, "conversationId");
    System.out.println(Json.object("conversationId", conversationId));
    var question = Json.object("conversationId", conversationId, "text", text);
    yocaso.stream(stream, UUID.randomUUID().toString(), question, event ->
        System.out.println(Json.object("id", event.id(), "type", event.type(), "data", event.data())));
    // endregion
  }
}

// region client
/** Calls the conversation service through this app's sidecar. */
record Yocaso(String url, Map<String, String> headers) {
  private static final String SIDECAR = "http://127.0.0.1:" + System.getenv().getOrDefault("DAPR_HTTP_PORT", "3500");
  private static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

  /** Calls the edge with a user's access token or an API key. */
  static Yocaso asUser(String credential) {
    return new Yocaso(
        SIDECAR + "/v1.0/invoke/edge/method/api/v1/llm/conversation/",
        Map.of("authorization", "Bearer " + credential));
  }

  /** Calls the app llm for one of our users; Yocaso's operator has to trust our app-id. */
  static Yocaso onBehalfOf(String user) {
    return new Yocaso(
        SIDECAR + "/v1.0/invoke/llm/method/yocaso.llm.v1.ConversationService/",
        Map.of("x-user-id", user, "x-scopes", "conversations:read conversations:write"));
  }

  /** Calls a method and returns its answer, which is JSON. The key makes the call safe to repeat. */
  String call(String method, String key, String request) throws Exception {
    for (var failures = 1; ; failures++) {
      try (var lines = post(method, key, "", request)) {
        return lines.collect(Collectors.joining("\n"));
      } catch (IOException | UncheckedIOException | Refusal problem) {
        pauseAfter(problem, failures);
      }
    }
  }

  /** The lines of an answer, as they arrive. */
  private Stream<String> post(String method, String key, String after, String body) throws Exception {
    var sent = new HashMap<>(headers);
    sent.put("content-type", "application/json");
    sent.put("accept", "text/event-stream, application/json");
    sent.put("dapr-api-token", System.getenv().getOrDefault("DAPR_API_TOKEN", ""));
    sent.put("idempotency-key", key);
    if (!after.isEmpty()) sent.put("last-event-id", after);
    var request = HttpRequest.newBuilder(URI.create(url + method)).POST(HttpRequest.BodyPublishers.ofString(body));
    sent.forEach(request::header);
    var response = HTTP.send(request.build(), HttpResponse.BodyHandlers.ofLines());

    var type = response.headers().firstValue("content-type").orElse("");
    // A sidecar sends an empty 200 when the app goes away before it answers.
    var isAnswer = type.startsWith("application/json") || type.startsWith("text/event-stream");
    if (response.statusCode() == 200 && isAnswer) return response.body();
    throw new Refusal(response.statusCode(), response.body().collect(Collectors.joining("\n")));
  }

  /** Waits before the next attempt; throws the problem if no attempt can help, or after ten in a row. */
  private static void pauseAfter(Exception problem, int failures) throws Exception {
    if (failures > 10 || problem instanceof Refusal refusal && refusal.isTerminal) throw problem;
    var asked = problem instanceof Refusal refusal ? refusal.retryAfterMillis : 0;
    Thread.sleep(Math.max(asked, 200L * failures));
  }

  private static final Set<String> LAST = Set.of("run.completed", "run.failed", "run.cancelled");

  /** Begins a turn and shows each of its events once. After a lost connection it resumes behind the last event shown. */
  void stream(String method, String key, String request, Consumer<Event> show) throws Exception {
    var after = "";
    for (var failures = 1; ; failures++) {
      Exception problem = new IOException("the stream ended early");
      try (var lines = post(method, key, after, request)) {
        for (var reader = lines.iterator(); reader.hasNext(); ) {
          var event = Event.read(reader);
          if (event.type().isEmpty()) continue; // a heartbeat
          if (event.type().equals("reconnect")) break;
          if (event.type().equals("error")) throw new Refusal(200, event.data());
          show.accept(event);
          if (LAST.contains(event.type())) return;
          after = event.id();
          failures = 0;
        }
      } catch (IOException | UncheckedIOException | Refusal lost) {
        problem = lost;
      }
      pauseAfter(problem, failures);
    }
  }
}

/** One server-sent event. */
record Event(String id, String type, String data) {

  /** Reads lines up to an empty one. A heartbeat is a line that begins with a colon. */
  static Event read(Iterator<String> lines) throws IOException {
    var fields = new HashMap<String, String>();
    while (lines.hasNext()) {
      var line = lines.next();
      var colon = line.indexOf(": ");
      if (colon > 0) fields.put(line.substring(0, colon), line.substring(colon + 2));
      if (line.isEmpty())
        return new Event(fields.getOrDefault("id", ""), fields.getOrDefault("event", ""), fields.getOrDefault("data", ""));
    }
    throw new IOException("the stream ended within an event");
  }
}

/** An error that Yocaso or a sidecar answered. */
class Refusal extends Exception {
  private static final long serialVersionUID = 1;
  final int status;
  final String code;
  final boolean isTerminal;
  final long retryAfterMillis;

  Refusal(int status, String body) {
    super(body);
    this.status = status;
    var own = Json.field(body, "code");
    var ofSidecar = Json.field(body, "errorCode");
    code = !own.isEmpty() ? own : !ofSidecar.isEmpty() ? ofSidecar : "UNAVAILABLE";
    isTerminal = own.isEmpty() ? status >= 400 && status < 500 : body.contains("\"isTerminal\":true");
    var retryAfter = Json.field(body, "retryAfter"); // such as 1.5s
    retryAfterMillis = retryAfter.isEmpty() ? 0 : (long) (1000 * Double.parseDouble(retryAfter.replace("s", "")));
  }
}
// endregion

/** The little JSON that this example needs; an app uses its own library. */
class Json {
  static String object(String... namesAndValues) {
    var members = new StringBuilder();
    for (var i = 0; i < namesAndValues.length; i += 2) {
      if (i > 0) members.append(',');
      members.append(quote(namesAndValues[i])).append(':').append(quote(namesAndValues[i + 1]));
    }
    return "{" + members + "}";
  }

  /** The first text field of this name, "" if there is none; only for values without escapes. */
  static String field(String json, String name) {
    var found = Pattern.compile("\"" + name + "\"\\s*:\\s*\"([^\"\\\\]*)\"").matcher(json);
    return found.find() ? found.group(1) : "";
  }

  private static String quote(String text) {
    var quoted = new StringBuilder("\"");
    text.chars().forEach(c -> {
      if (c == '"' || c == '\\') quoted.append('\\').append((char) c);
      else if (c < ' ' || c > '~') quoted.append("\\u%04x".formatted(c));
      else quoted.append((char) c);
    });
    return quoted.append('"').toString();
  }
}
