// What the page knows. Tokens live here only: a page that is loaded again knows none.
import { Failure } from './api.js';

export const state = {
	sites: [],
	users: [],
	added: [], // names of new users
	sessions: [], // { n, user, app, site, token, live }
	exchanges: [], // the last of them first
	current: null, // the exchange in view
};

// How many exchanges stay in the list.
const kept = 20;

export function remember(exchange) {
	state.exchanges = [exchange, ...state.exchanges].slice(0, kept);
	state.current = exchange;
}

// Returns the newest live session of a user, or undefined.
export const sessionOf = (site, app, user) => state.sessions.findLast(
	(s) => s.live && s.user === user && s.site === site && s.app === app);

// Reads the lines of a text field as headers.
export function headersOf(text) {
	return text.split(/\r?\n/).filter((line) => line.trim()).map((line) => {
		const colon = line.indexOf(':');
		if (colon < 1) throw new Failure('bad_header', line);
		return [line.slice(0, colon), line.slice(colon + 1).trim()];
	});
}

// Returns the header that carries a token at a site.
export function tokenHeader(site, token) {
	const colon = site.token.indexOf(':');
	return [site.token.slice(0, colon), site.token.slice(colon + 1).trimStart() + token];
}

// Returns a token of the right shape that no gate has signed.
export function madeUpToken() {
	const bytes = crypto.getRandomValues(new Uint8Array(31));
	const base64 = btoa(String.fromCharCode(...bytes));
	return `wxs_${base64.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '').slice(0, 41)}`;
}

// Returns a request as a curl command for a shell.
export function curlOf(exchange, site) {
	const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
	const [method, path] = exchange.sent.start.split(' ');
	const parts = ['curl -i --path-as-is'];
	if (method === 'HEAD') parts.push('-I');
	else if (method !== 'GET') parts.push(`-X ${method}`);
	parts.push(quoted(site.url + path));
	for (const { name, value } of exchange.sent.lines) {
		if (name !== 'Host' && name !== 'Content-Length') parts.push(`-H ${quoted(`${name}: ${value}`)}`);
	}
	if (exchange.body) parts.push(`--data-raw ${quoted(exchange.body)}`);
	return parts.join(' ');
}
