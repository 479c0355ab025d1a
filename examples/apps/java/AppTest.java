import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The tests. A header is all that makes a request a logged-in user's. */
public class AppTest {
    static final HttpClient client = HttpClient.newHttpClient();
    static final Map<String, String> ADA = Map.of("X-WX-APPID", "wxA", "X-WX-OPENID", "oAda");

    /** The app with a gate that finds "risky" in texts, and notes whom it forgets. */
    static class Gate extends App {
        String forgotten;
        boolean down;

        Gate(Path file) throws IOException { super(file, ""); }

        @Override
        String call(String path, String json) throws IOException {
            if (down) {
                throw new IOException("the gate is down");
            }
            if (path.equals("/wx/user/forget")) {
                forgotten = json;
                return "";
            }
            return "{\"errcode\":0,\"result\":{\"label\":100,\"suggest\":\""
                + (json.contains("risky") ? "risky" : "pass") + "\"}}";
        }
    }

    static int port;

    static HttpResponse<String> me(String method, String body, Map<String, String> headers)
            throws Exception {
        var request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/api/me"))
            .method(method, HttpRequest.BodyPublishers.ofString(body));
        headers.forEach(request::setHeader);
        return client.send(request.build(), HttpResponse.BodyHandlers.ofString());
    }

    static String field(HttpResponse<String> answer, String name) {
        Matcher m = Pattern.compile("\"" + name + "\":\"([^\"]*)\"").matcher(answer.body());
        return m.find() ? m.group(1) : null;
    }

    static void same(Object want, Object got, String what) {
        if (!want.equals(got)) {
            throw new AssertionError(what + ": got " + got + ", want " + want);
        }
    }

    static void differ(Object old, Object got, String what) {
        if (old.equals(got)) {
            throw new AssertionError(what + " is " + got);
        }
    }

    static Map<String, String> user(String appid, String openid, String unionid) {
        return Map.of("X-WX-APPID", appid, "X-WX-OPENID", openid, "X-WX-UNIONID", unionid);
    }

    public static void main(String[] args) throws Exception {
        Path file = Files.createTempDirectory("app").resolve("users.txt");
        var gate = new Gate(file);
        var server = gate.start(0);
        port = server.getAddress().getPort();

        var first = me("GET", "", ADA);
        same("oAda", field(first, "openid"), "the openid");
        same(first.body(), me("GET", "", ADA).body(), "the row of the second request");
        String id = field(first, "id");
        differ(id, field(me("GET", "", user("wxA", "oBob", "")), "id"), "the row of bob");
        differ(id, field(me("GET", "", user("wxB", "oAda", "")), "id"), "the row of another app");
        same(401, me("GET", "", Map.of()).statusCode(), "the status without a user");

        String[][] unionids = {{"", ""}, {"uAda", "uAda"}, {"", "uAda"}, {"uNew", "uNew"}};
        for (String[] step : unionids) {
            same(step[1], field(me("GET", "", user("wxA", "oAda", step[0])), "unionid"),
                "the unionid, told '" + step[0] + "'");
        }

        var statuses = Map.of("nickname=Ada+%22L%22", 200, "nickname=a+risky+one", 422,
            "nickname=", 400, "", 400);
        for (var want : statuses.entrySet()) {
            same(want.getValue(), me("PUT", want.getKey(), ADA).statusCode(), want.getKey());
        }
        same("Ada \"L\"", new App(file, "").user(new App.Caller("wxA", "oAda", "")).nickname(),
            "the nickname in the file");

        gate.down = true;
        same(500, me("DELETE", "", ADA).statusCode(), "the status without the gate");
        same(id, field(me("GET", "", ADA), "id"), "the row that the gate has not forgotten");
        gate.down = false;
        same(204, me("DELETE", "", ADA).statusCode(), "the status of a deletion");
        same("{\"appid\":\"wxA\",\"openid\":\"oAda\"}", gate.forgotten, "who is forgotten");
        differ(id, field(me("GET", "", ADA), "id"), "the row after the deletion");

        server.stop(0);
        System.out.println("ok");
        System.exit(0); // the threads of the server are no daemons
    }
}
