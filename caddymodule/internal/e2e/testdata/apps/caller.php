<?php
// Says who is calling as PHP's own API has it, and all else that PHP knows of the request. What it says also goes to
// the file $APP_SEEN, so that a request is noticed whatever becomes of the answer.

function entries(string $api, array $values): array
{
    $entries = [];
    foreach ($values as $name => $value) {
        if (is_scalar($value)) {
            $entries[] = ['api' => $api, 'name' => (string) $name, 'value' => (string) $value];
        }
    }
    return $entries;
}

$said = json_encode([
    'openid' => $_SERVER['HTTP_X_WX_OPENID'] ?? null,
    'unionid' => $_SERVER['HTTP_X_WX_UNIONID'] ?? null,
    'appid' => $_SERVER['HTTP_X_WX_APPID'] ?? null,
    'source' => $_SERVER['HTTP_X_WX_SOURCE'] ?? null,
    'environment' => array_merge(entries('$_SERVER', $_SERVER), entries('getenv', getenv())),
    'headers' => entries('getallheaders', getallheaders()),
    'paths' => [
        'REQUEST_URI' => (string) strtok($_SERVER['REQUEST_URI'], '?'),
        'parse_url' => (string) parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH),
        'SCRIPT_NAME' => $_SERVER['SCRIPT_NAME'],
        'PHP_SELF' => $_SERVER['PHP_SELF'],
    ],
], JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_SLASHES);

file_put_contents(getenv('APP_SEEN'), $said . "\n", FILE_APPEND);
header('X-App: php');
header('Content-Type: application/json');
echo $said;
