// Verifies an assertion: node verify.mjs <token>, with JWKS, ISSUER and AUDIENCE set.
// It prints the openid. No package is needed.
import { createPublicKey, verify as verifySignature } from 'node:crypto'
import { get } from 'node:http'

// verify returns the claims of a token that is for us and holds now. An app keeps the
// keys for 5 minutes, and gets them anew for a kid that it does not know.
function verify(token, keys, issuer, audience) {
	const parts = token.split('.')
	if (parts.length !== 3) throw new Error('no JWT')
	const [head, claims] = parts.slice(0, 2).map(p => JSON.parse(Buffer.from(p, 'base64url')))
	if (head.alg !== 'ES256') throw new Error('algorithm')
	const jwk = keys.find(k => k.kid === head.kid)
	if (!jwk) throw new Error('key')
	const key = { key: createPublicKey({ key: jwk, format: 'jwk' }), dsaEncoding: 'ieee-p1363' }
	if (!verifySignature('sha256', Buffer.from(parts[0] + '.' + parts[1]), key,
		Buffer.from(parts[2], 'base64url'))) throw new Error('signature')
	const now = Date.now() / 1000, leeway = 30
	if (claims.iss !== issuer) throw new Error('issuer')
	if (claims.aud !== audience) throw new Error('audience')
	if (!(claims.exp > now - leeway) || !(claims.iat < now + leeway)) throw new Error('time')
	return claims
}

get(process.env.JWKS, res => {
	let text = ''
	res.on('data', d => { text += d })
	res.on('end', () => {
		try {
			const { keys } = JSON.parse(text)
			console.log(verify(process.argv[2], keys, process.env.ISSUER, process.env.AUDIENCE).sub)
		} catch (e) {
			console.error('refused: ' + e.message)
			process.exit(1)
		}
	})
})
