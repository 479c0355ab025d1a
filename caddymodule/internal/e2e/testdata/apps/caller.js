// Says who is calling as Node's http server has it, and all else that it knows of the request. What it says also goes
// to the file $APP_SEEN, so that a request is noticed whatever becomes of the answer.
'use strict';

const fs = require('fs');
const http = require('http');

function entries(api, list) {
	return list.map(([name, value]) => ({ api, name, value: String(value) }));
}

// pairs makes pairs of [name, value, name, value, …].
function pairs(raw) {
	return raw.flatMap((name, i) => (i % 2 ? [] : [[name, raw[i + 1]]]));
}

function resolved(url) {
	try {
		return new URL(url, 'http://app').pathname;
	} catch {
		return '';
	}
}

const server = http.createServer((req, res) => {
	req.resume();
	req.on('end', () => {
		const said = JSON.stringify({
			openid: req.headers['x-wx-openid'] ?? null,
			unionid: req.headers['x-wx-unionid'] ?? null,
			appid: req.headers['x-wx-appid'] ?? null,
			source: req.headers['x-wx-source'] ?? null,
			environment: entries('process.env', Object.entries(process.env)),
			headers: [
				...entries('headers', Object.entries(req.headers)),
				...entries('rawHeaders', pairs(req.rawHeaders)),
				...entries('trailers', Object.entries(req.trailers)),
				...entries('rawTrailers', pairs(req.rawTrailers)),
			],
			paths: { url: req.url.split('?')[0], URL: resolved(req.url) },
		});
		fs.appendFileSync(process.env.APP_SEEN, said + '\n');
		res.writeHead(200, { 'X-App': 'node', 'Content-Type': 'application/json' });
		res.end(said);
	});
});

server.listen(Number(process.argv[2]), '127.0.0.1');
