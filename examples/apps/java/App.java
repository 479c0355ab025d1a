import static java.nio.charset.StandardCharsets.UTF_8;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.*;
import java.net.http.*;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.Executors;
import java.util.function.UnaryOperator;
import java.util.regex.Pattern;

/** A small app behind the gate. It keeps its users in a file. Java 17: java App.java */
public class App {
    /** The user of a request, as the gate names it. An openid belongs to one mini program. */
    record Caller(String appid, String openid, String unionid) {}

    /** The row of a user. The unionid is empty until WeChat tells it. */
    record User(String id, String openid, String unionid, String nickname) {
        String json() {
            return String.format("{\"id\":%s,\"openid\":%s,\"unionid\":%s,\"nickname\":%s}",
                quote(id), quote(openid), quote(unionid), quote(nickname));
        }
    }

    record Answer(int status, String json) {}

    private final Map<String, User> rows = new TreeMap<>(); // by appid/openid
    private final Path file;
    private final String wechat;
    private final HttpClient client = HttpClient.newHttpClient();

    /** Reads the file. wechat is the URL of the gate's wechat_api. */
    App(Path file, String wechat) throws IOException {
        this.file = file;
        this.wechat = wechat;
        if (Files.exists(file)) {
            for (String line : Files.readAllLines(file)) {
                String[] f = line.split(" ", -1);
                rows.put(f[0], new User(f[1], f[2], f[3], URLDecoder.decode(f[4], UTF_8)));
            }
        }
    }

    static String key(Caller c) { return c.appid + "/" + c.openid; }

    /** Returns the row of the caller. It writes at first sight, and for a new unionid. */
    User user(Caller c) throws IOException { return save(c, user -> user); }

    /**
     * Changes the row of the caller, or makes it. Parallel first requests come here one by
     * one, so they make one row. In SQL the pair (appid, openid) is the primary key, and
     * this is INSERT … ON CONFLICT DO UPDATE.
     */
    synchronized User save(Caller c, UnaryOperator<User> edit) throws IOException {
        User old = rows.get(key(c));
        User now = old != null ? old : new User(UUID.randomUUID().toString(), c.openid, "", "");
        if (!c.unionid.isEmpty()) { // one that is missing does not overwrite
            now = new User(now.id, now.openid, c.unionid, now.nickname);
        }
        now = edit.apply(now);
        if (!now.equals(old)) {
            rows.put(key(c), now);
            write();
        }
        return now;
    }

    synchronized void remove(Caller c) throws IOException {
        rows.remove(key(c));
        write();
    }

    /** Writes the rows. The new file is on the disk before it takes the place of the old. */
    private void write() throws IOException {
        var text = new StringBuilder();
        rows.forEach((key, u) -> text.append(String.join(" ", key, u.id, u.openid, u.unionid,
            URLEncoder.encode(u.nickname, UTF_8))).append('\n'));
        Path next = Path.of(file + ".new");
        Files.writeString(next, text, StandardOpenOption.CREATE, StandardOpenOption.WRITE,
            StandardOpenOption.TRUNCATE_EXISTING, StandardOpenOption.SYNC);
        Files.move(next, file, StandardCopyOption.ATOMIC_MOVE);
    }

    /** Sets the nickname. WeChat asks apps to check what other users will read. */
    Answer rename(Caller c, String form) throws Exception {
        String nickname = "";
        for (String field : form.split("&")) {
            if (field.startsWith("nickname=")) {
                nickname = URLDecoder.decode(field.substring(9), UTF_8);
            }
        }
        if (nickname.isEmpty()) {
            return new Answer(400, "{\"error\":\"nickname is missing\"}");
        }
        String check = call("/wxa/msg_sec_check?from_appid=" + c.appid, String.format(
            "{\"openid\":%s,\"version\":2,\"scene\":1,\"content\":%s}",
            quote(c.openid), quote(nickname)));
        if (!PASS.matcher(check).find()) {
            return new Answer(422, "{\"error\":\"nickname is refused\"}");
        }
        String name = nickname;
        return new Answer(200, save(c, u -> new User(u.id, u.openid, u.unionid, name)).json());
    }

    /** Your app has a JSON library. This pattern is one for a single field. */
    static final Pattern PASS =
        Pattern.compile("\"result\"\\s*:\\s*\\{[^{}]*\"suggest\"\\s*:\\s*\"pass\"");

    /**
     * Closes the account. The gate is first: it ends the user's sessions, so that no new
     * request makes the row again.
     */
    Answer delete(Caller c) throws Exception {
        call("/wx/user/forget",
            String.format("{\"appid\":%s,\"openid\":%s}", quote(c.appid), quote(c.openid)));
        remove(c);
        return new Answer(204, "");
    }

    /** Asks WeChat through the gate, or the gate itself (/wx/user/…). */
    String call(String path, String json) throws Exception {
        var answer = client.send(HttpRequest.newBuilder(URI.create(wechat + path))
            .header("Content-Type", "application/json").timeout(Duration.ofSeconds(30))
            .POST(HttpRequest.BodyPublishers.ofString(json)).build(),
            HttpResponse.BodyHandlers.ofString());
        // The gate refuses with a status, WeChat with an errcode.
        if (answer.statusCode() >= 300 || FAILED.matcher(answer.body()).find()) {
            throw new IOException(path + ": " + answer.statusCode() + " " + answer.body());
        }
        return answer.body();
    }

    static final Pattern FAILED = Pattern.compile("^\\s*\\{\\s*\"errcode\"\\s*:\\s*-?[1-9]");

    Answer answer(HttpExchange http) throws Exception {
        // The gate has verified these. There is no other login code.
        var c = new Caller(header(http, "X-WX-APPID"), header(http, "X-WX-OPENID"),
            header(http, "X-WX-UNIONID"));
        if (c.openid.isEmpty()) {
            return new Answer(401, "{\"error\":\"no user\"}");
        }
        return switch (http.getRequestMethod() + " " + http.getRequestURI().getPath()) {
            case "GET /api/me" -> new Answer(200, user(c).json());
            case "PUT /api/me" -> rename(c,
                new String(http.getRequestBody().readNBytes(64 << 10), UTF_8));
            case "DELETE /api/me" -> delete(c);
            default -> new Answer(404, "{\"error\":\"no such page\"}");
        };
    }

    static String header(HttpExchange http, String name) {
        return Objects.requireNonNullElse(http.getRequestHeaders().getFirst(name), "");
    }

    /** Returns a JSON string. */
    static String quote(String s) {
        var out = new StringBuilder("\"");
        s.chars().forEach(c -> out.append(
            c < ' ' || c == '"' || c == '\\' ? String.format("\\u%04x", c) : (char) c));
        return out.append('"').toString();
    }

    /** Starts the app. Port 0 is any free one. */
    HttpServer start(int port) throws IOException {
        // On loopback, since the app believes the headers of all who reach it.
        var server = HttpServer.create(
            new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", http -> {
            Answer answer;
            try {
                answer = answer(http);
            } catch (Exception e) {
                e.printStackTrace();
                answer = new Answer(500, "{\"error\":\"try again\"}");
            }
            byte[] body = answer.json.getBytes(UTF_8);
            http.getResponseHeaders().set("Content-Type", "application/json");
            http.sendResponseHeaders(answer.status, body.length == 0 ? -1 : body.length);
            http.getResponseBody().write(body);
            http.close();
        });
        server.start();
        return server;
    }

    public static void main(String[] args) throws IOException {
        Map<String, String> env = System.getenv();
        new App(Path.of(env.getOrDefault("DATABASE", "users.txt")),
            env.getOrDefault("WECHAT", "http://127.0.0.1:8081"))
            .start(Integer.parseInt(env.getOrDefault("PORT", "8080")));
    }
}
