<?php
// The tests: php app_test.php. A header is all that makes a request a logged-in user's.
declare(strict_types=1);

require __DIR__ . '/app.php';

/** The app with a gate that finds "risky" in texts, and notes whom it forgets. */
class TestApp extends App
{
    public ?array $forgotten = null;
    public bool $down = false;

    protected function call(string $path, array $data): array
    {
        if ($this->down) {
            throw new RuntimeException('the gate is down');
        }
        if ($path === '/wx/user/forget') {
            $this->forgotten = $data;
            return [];
        }
        $risky = str_contains($data['content'], 'risky');
        return ['result' => ['suggest' => $risky ? 'risky' : 'pass']];
    }

    public function me(string $method, array $user, string $body = ''): array
    {
        $headers = [];
        foreach ($user as $name => $value) {
            $headers['HTTP_X_WX_' . strtoupper($name)] = $value;
        }
        return $this->handle($method, '/api/me', $headers, $body);
    }
}

function same(mixed $want, mixed $got, string $what): void
{
    if ($want !== $got) {
        fprintf(STDERR, "%s: got %s, want %s\n", $what, json_encode($got), json_encode($want));
        exit(1);
    }
}

const ADA = ['appid' => 'wxA', 'openid' => 'oAda'];

$tests = [
    'each user has one row' => function (TestApp $app) {
        [, $first] = $app->me('GET', ADA);
        same('oAda', $first['openid'], 'the openid');
        same($first, $app->me('GET', ADA)[1], 'the row of the second request');
        foreach (['openid' => 'oBob', 'appid' => 'wxB'] as $name => $value) {
            [, $other] = $app->me('GET', [$name => $value] + ADA);
            same(false, $other['id'] === $first['id'], "the row of $value is ada's");
        }
        same(401, $app->me('GET', [])[0], 'the status without a user');
    },
    'a unionid that comes late stays' => function (TestApp $app) {
        foreach ([['', null], ['uAda', 'uAda'], ['', 'uAda'], ['uNew', 'uNew']] as [$told, $want]) {
            $row = $app->me('GET', ADA + ['unionid' => $told])[1];
            same($want, $row['unionid'], "the unionid, told '$told'");
        }
    },
    'WeChat checks the nickname' => function (TestApp $app) {
        $bodies = [
            'nickname=Ada' => 200, 'nickname=a+risky+one' => 422, 'nickname=' => 400, '' => 400,
        ];
        foreach ($bodies as $body => $want) {
            same($want, $app->me('PUT', ADA, $body)[0], "the status for '$body'");
        }
        same('Ada', $app->me('GET', ADA)[1]['nickname'], 'the nickname');
    },
    'the gate forgets first' => function (TestApp $app) {
        $first = $app->me('GET', ADA)[1];
        $app->down = true;
        try {
            $app->me('DELETE', ADA);
            same('an exception', 'none', 'without the gate');
        } catch (RuntimeException) {
        }
        same($first, $app->me('GET', ADA)[1], 'the row that the gate has not forgotten');
        $app->down = false;
        same([204, null], $app->me('DELETE', ADA), 'the answer');
        same(ADA, $app->forgotten, 'the user whom the gate forgets');
        same(false, $app->me('GET', ADA)[1]['id'] === $first['id'], 'the old row is there');
    },
];
foreach ($tests as $name => $test) {
    $test(new TestApp(':memory:', ''));
    echo "ok: $name\n";
}
