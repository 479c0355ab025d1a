<?php
// Verifies an assertion: php verify.php <token>, with JWKS, ISSUER and AUDIENCE set.
// It prints the openid. It needs the extension openssl and no package.

function bytes(string $s): string
{
	return (string) base64_decode(strtr($s, '-_', '+/'), true);
}

/** An unsigned number of DER. */
function number(string $b): string
{
	$b = ltrim($b, "\0");
	if ($b === '' || ord($b[0]) > 127) {
		$b = "\0" . $b;
	}
	return "\x02" . chr(strlen($b)) . $b;
}

/**
 * Returns the claims of a token that is for us and holds now. An app keeps the keys for
 * 5 minutes, and gets them anew for a kid that it does not know.
 */
function verify(string $token, array $keys, string $issuer, string $audience): array
{
	$parts = explode('.', $token);
	if (count($parts) !== 3) {
		throw new Exception('no JWT');
	}
	$head = json_decode(bytes($parts[0]), true);
	if (($head['alg'] ?? '') !== 'ES256') {
		throw new Exception('algorithm');
	}
	$found = array_values(array_filter($keys, fn ($k) => $k['kid'] === ($head['kid'] ?? null)));
	$signature = bytes($parts[2]);
	if (!$found || strlen($signature) !== 64) {
		throw new Exception('key');
	}
	// The public key of P-256 in DER, and the signature as DER wants it.
	$point = "\x04" . bytes($found[0]['x']) . bytes($found[0]['y']);
	$der = hex2bin('3059301306072a8648ce3d020106082a8648ce3d030107034200') . $point;
	$pem = "-----BEGIN PUBLIC KEY-----\n" . chunk_split(base64_encode($der), 64) . "-----END PUBLIC KEY-----\n";
	$numbers = number(substr($signature, 0, 32)) . number(substr($signature, 32));
	$signature = "\x30" . chr(strlen($numbers)) . $numbers;
	if (openssl_verify("$parts[0].$parts[1]", $signature, $pem, OPENSSL_ALGO_SHA256) !== 1) {
		throw new Exception('signature');
	}
	$claims = json_decode(bytes($parts[1]), true);
	[$now, $leeway] = [time(), 30];
	if (($claims['iss'] ?? null) !== $issuer || ($claims['aud'] ?? null) !== $audience) {
		throw new Exception('issuer or audience');
	}
	if (($claims['exp'] ?? 0) <= $now - $leeway || ($claims['iat'] ?? PHP_INT_MAX) >= $now + $leeway) {
		throw new Exception('time');
	}
	return $claims;
}

try {
	$keys = json_decode(file_get_contents(getenv('JWKS')), true)['keys'];
	echo verify($argv[1], $keys, getenv('ISSUER'), getenv('AUDIENCE'))['sub'], "\n";
} catch (Exception $e) {
	fwrite(STDERR, 'refused: ' . $e->getMessage() . "\n");
	exit(1);
}
