<?php
// A small app behind the gate. It keeps its users in SQLite (Debian: php-sqlite3):
//
//	php -S 127.0.0.1:8080 app.php
//
// It listens on loopback, since it believes the headers of all who reach it.
declare(strict_types=1);

const USERS = 'CREATE TABLE IF NOT EXISTS users (
    appid    TEXT NOT NULL,
    openid   TEXT NOT NULL,
    id       TEXT NOT NULL UNIQUE,
    unionid  TEXT,
    nickname TEXT NOT NULL DEFAULT \'\',
    PRIMARY KEY (appid, openid)
)';

class Refusal extends Exception
{
}

class App
{
    private PDO $db;

    /** @param string $wechat URL of the gate's wechat_api */
    public function __construct(string $file, private string $wechat)
    {
        $this->db = new PDO("sqlite:$file", options: [
            PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
            PDO::ATTR_TIMEOUT => 10,
        ]);
        $this->db->exec(USERS);
    }

    /** Answers a request with a status and data. */
    public function handle(string $method, string $path, array $server, string $body): array
    {
        // The gate has verified these. There is no other login code.
        $appid = $server['HTTP_X_WX_APPID'] ?? '';
        $openid = $server['HTTP_X_WX_OPENID'] ?? '';
        $unionid = ($server['HTTP_X_WX_UNIONID'] ?? '') ?: null;
        try {
            if ($openid === '') {
                throw new Refusal('no user', 401);
            }
            return match ("$method $path") {
                'GET /api/me' => [200, $this->user($appid, $openid, $unionid)],
                'PUT /api/me' => [200, $this->rename($appid, $openid, $unionid, $body)],
                'DELETE /api/me' => [204, $this->delete($appid, $openid)],
                default => throw new Refusal('no such page', 404),
            };
        } catch (Refusal $e) {
            return [$e->getCode(), ['error' => $e->getMessage()]];
        }
    }

    /**
     * Returns the row of a user. It writes at first sight, and for a new unionid. The
     * database lets one of parallel first requests make the row; an unknown unionid does
     * not overwrite a known one.
     */
    private function user(string $appid, string $openid, ?string $unionid): array
    {
        $found = $this->row(
            'SELECT id, openid, unionid, nickname FROM users WHERE appid = ? AND openid = ?',
            [$appid, $openid],
        );
        if ($found && ($unionid === null || $unionid === $found['unionid'])) {
            return $found;
        }
        return $this->row(
            'INSERT INTO users (appid, openid, id, unionid) VALUES (?, ?, ?, ?)
             ON CONFLICT (appid, openid) DO UPDATE SET unionid = COALESCE(excluded.unionid, unionid)
             RETURNING id, openid, unionid, nickname',
            [$appid, $openid, bin2hex(random_bytes(8)), $unionid],
        );
    }

    /** Sets the nickname. WeChat asks apps to check what other users will read. */
    private function rename(string $appid, string $openid, ?string $unionid, string $body): array
    {
        parse_str($body, $form);
        $nickname = $form['nickname'] ?? '';
        if (!is_string($nickname) || $nickname === '') {
            throw new Refusal('nickname is missing', 400);
        }
        $check = $this->call('/wxa/msg_sec_check?from_appid=' . urlencode($appid), [
            'openid' => $openid, 'version' => 2, 'scene' => 1, 'content' => $nickname,
        ]);
        if ($check['result']['suggest'] !== 'pass') {
            throw new Refusal('nickname is refused', 422);
        }
        $this->user($appid, $openid, $unionid);
        return $this->row(
            'UPDATE users SET nickname = ? WHERE appid = ? AND openid = ?
             RETURNING id, openid, unionid, nickname',
            [$nickname, $appid, $openid],
        );
    }

    /**
     * Closes the account. The gate is first: it ends the user's sessions, so that no new
     * request makes the row again.
     */
    private function delete(string $appid, string $openid): ?array
    {
        $this->call('/wx/user/forget', ['appid' => $appid, 'openid' => $openid]);
        return $this->row('DELETE FROM users WHERE appid = ? AND openid = ?', [$appid, $openid]);
    }

    private function row(string $sql, array $values): ?array
    {
        $statement = $this->db->prepare($sql);
        $statement->execute($values);
        $row = $statement->fetch() ?: null;
        $statement->closeCursor();
        return $row;
    }

    /** Asks WeChat through the gate, or the gate itself (/wx/user/…). */
    protected function call(string $path, array $data): array
    {
        $answer = @fopen($this->wechat . $path, 'r', false, stream_context_create(['http' => [
            'method' => 'POST',
            'header' => 'Content-Type: application/json',
            'content' => json_encode($data, JSON_THROW_ON_ERROR),
            'ignore_errors' => true,
            'timeout' => 30,
        ]]));
        if ($answer === false) {
            throw new RuntimeException("$path: the gate does not answer");
        }
        $status = (int) explode(' ', stream_get_meta_data($answer)['wrapper_data'][0])[1];
        $data = json_decode(stream_get_contents($answer), true) ?? [];
        // The gate refuses with a status, WeChat with an errcode.
        if ($status >= 300 || ($data['errcode'] ?? 0) !== 0) {
            throw new RuntimeException("$path: $status " . json_encode($data));
        }
        return $data;
    }
}

if (PHP_SAPI !== 'cli') { // a web server runs this file, not the test
    ini_set('display_errors', '0'); // an exception is a 500, and in the log
    $app = new App(getenv('DATABASE') ?: 'users.db', getenv('WECHAT') ?: 'http://127.0.0.1:8081');
    $path = strtok($_SERVER['REQUEST_URI'], '?');
    $body = file_get_contents('php://input');
    [$status, $data] = $app->handle($_SERVER['REQUEST_METHOD'], $path, $_SERVER, $body);
    http_response_code($status);
    if ($data !== null) {
        header('Content-Type: application/json');
        echo json_encode($data);
    }
}
