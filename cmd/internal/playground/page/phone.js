// The phone: the forms, and what they send.
import { $, el, shorten } from './dom.js';
import { post, Failure } from './api.js';
import { presets } from './presets.js';
import { state, remember, sessionOf, headersOf, tokenHeader, madeUpToken } from './state.js';
import { codeOf } from './view.js';
import { t } from './words.js';

const site = () => Number($('site').value || 0);
const app = () => $('app').value;
const modes = ['works', 'down', 'busy', 'silent'];
const json = ['Content-Type', 'application/json'];

// Returns the user that is chosen, '' for a new one without a name.
function user() {
	const chosen = document.querySelector('#users input:checked')?.value ?? '';
	return chosen || $('new-user').value.trim();
}

// Draws what changes with the state and the language. It keeps what is chosen.
export function drawPhone() {
	drawSites();
	drawUsers();
	drawSession();
	drawTokens();
	drawPresets();
	drawModes();
}

function options(select, entries) {
	const before = select.value;
	select.replaceChildren(...entries.map(([value, label]) => el('option', { value }, label)));
	if (entries.some(([value]) => value === before)) select.value = before;
}

function drawSites() {
	options($('site'), state.sites.map((s, i) => [String(i), s.name ? `${s.name} (${s.url})` : s.url]));
	$('site-field').hidden = state.sites.length < 2;
	const apps = state.sites[site()]?.apps ?? [];
	options($('app'), apps.map((id) => [id, id]));
	$('app-field').hidden = apps.length < 2;
}

function drawUsers(chosen) {
	const names = [...state.users, ...state.added].map((n) => [n, n]);
	chips($('users'), 'user', [...names, ['', t('newUser')]], chosen);
	$('new-user-field').hidden = document.querySelector('#users input:checked').value !== '';
}

// Draws radio buttons. Those that are there stay, or the focus would be lost.
function chips(container, name, entries, chosen) {
	const values = () => [...container.querySelectorAll('input')];
	const before = chosen ?? values().find((r) => r.checked)?.value ?? entries[0][0];
	if (values().map((r) => r.value).join('\n') !== entries.map(([value]) => value).join('\n')) {
		container.replaceChildren(...entries.map(([value]) => el('label', { class: 'chip' },
			el('input', { type: 'radio', name, value }), el('span'))));
	}
	entries.forEach(([value, label], i) => {
		const radio = values()[i];
		radio.checked = value === before;
		radio.nextSibling.textContent = label;
	});
}

export function drawSession() {
	const s = sessionOf(site(), app(), user());
	$('logout').disabled = !s;
	$('session').replaceChildren(...(s
		? [t('loggedIn', { user: s.user }), el('code', {}, shorten(s.token))] : [t('nobody')]));
}

function drawTokens() {
	const entries = state.sessions.filter((s) => s.site === site()).map((s) => [
		String(s.n), t(s.live ? 'tokenLive' : 'tokenDead', { user: s.user, n: shorten(s.token) }),
	]);
	options($('token'), [...entries.reverse(), ['none', t('tokenNone')], ['made', t('tokenMade')]]);
}

function drawPresets() {
	options($('preset'), presets.map((p) => [p.name, t(`preset.${p.name}`)]));
	$('preset-hint').textContent = t(`preset.${$('preset').value}.hint`);
}

function drawModes(chosen) {
	chips($('modes'), 'mode', modes.map((mode) => [mode, t(`mode.${mode}`)]), chosen);
}

// Fills the form of a call.
function applyPreset() {
	const p = presets.find((one) => one.name === $('preset').value);
	const s = state.sites[site()];
	if (p.method) $('method').value = p.method;
	if (p.path) $('path').value = p.path(s);
	else if ($('path').value.startsWith(`${s.prefix}/`) || $('path').value.includes('/../')) $('path').value = '/hello';
	if (p.headers) $('headers').value = p.headers(s);
	if (p.method === 'GET') $('body').value = '';
	const newest = (live) => state.sessions.findLast((x) => x.site === site() && x.live === live);
	const choice = { live: newest(true), old: newest(false) }[p.token];
	if (p.token) $('token').value = choice ? String(choice.n) : 'none';
	$('preset-hint').textContent = t(`preset.${p.name}.hint`);
}

// Returns the headers that carry the chosen token.
function chosenToken() {
	const value = $('token').value;
	if (value === 'none') return [];
	const token = value === 'made' ? madeUpToken() : state.sessions.find((s) => String(s.n) === value).token;
	return [tokenHeader(state.sites[site()], token)];
}

// Sends one request through the gate. Action tells the view what it was for.
async function send(method, path, headers, body, action, by) {
	const at = site();
	const x = await post('exchange', { site: at, method, path, headers, body });
	Object.assign(x, { action, body, siteIndex: at, user: by });
	remember(x);
	if (codeOf(x) === 'session_invalid') {
		const dead = state.sessions.filter((s) => headers.some(([, value]) => value.endsWith(s.token)));
		for (const s of dead) s.live = false;
	}
	return x;
}

const prefix = () => state.sites[site()].prefix;

async function logIn() {
	if (!app()) throw new Failure('noMiniProgram');
	const who = user();
	const { code } = await post('code', { appid: app(), user: who, unionid: $('unionid').checked });
	const body = JSON.stringify({ appid: app(), code });
	const x = await send('POST', `${prefix()}/login`, [json], body, 'login', who);
	if (!state.users.includes(who) && !state.added.includes(who)) {
		state.added.push(who);
		drawUsers(who);
		$('new-user').value = '';
	}
	let token;
	try {
		token = JSON.parse(x.answer.body.text)['3rd_session'];
	} catch { /* no session in the answer, which the view shows */ }
	if (!token) return;
	const n = state.sessions.length;
	state.sessions.push({ n, user: who, app: app(), site: site(), token, live: true });
	drawTokens();
	$('token').value = String(n);
}

async function logOut() {
	const s = sessionOf(site(), app(), user());
	const x = await send('POST', `${prefix()}/logout`, [tokenHeader(state.sites[site()], s.token)], '', 'logout', s.user);
	if (x.answer?.status === 204) s.live = false;
}

const userOfToken = () => state.sessions.find((s) => String(s.n) === $('token').value)?.user;

async function call() {
	const headers = [...chosenToken(), ...headersOf($('headers').value)];
	const body = $('body').value;
	if (body && !headers.some(([name]) => name.toLowerCase() === 'content-type')) headers.push(json);
	await send($('method').value, $('path').value.trim(), headers, body, 'call', userOfToken());
}

async function givePhone() {
	const { code } = await post('phone_code', { appid: app(), phone: $('number').value.trim() });
	await send('POST', `${prefix()}/phone`, [...chosenToken(), json], JSON.stringify({ code }), 'phone', userOfToken());
}

async function giveData() {
	let data;
	try {
		data = JSON.parse($('data').value);
	} catch {
		throw new Failure('bad_data');
	}
	const sealed = await post('encrypt', { appid: app(), user: userOfToken() ?? user(), data });
	await send('POST', `${prefix()}/decrypt`, [...chosenToken(), json], JSON.stringify(sealed), 'decrypt', userOfToken());
}

const setMode = () => post('wechat', { mode: document.querySelector('#modes input:checked').value });

// Connects the forms. Run does one action at a time, and shows its outcome.
export function connect(run) {
	drawModes(state.wechat);
	const submits = { login: logIn, call, 'phone-number': givePhone, 'open-data': giveData };
	for (const [id, action] of Object.entries(submits)) {
		$(id).addEventListener('submit', (event) => {
			event.preventDefault();
			run(action);
		});
	}
	$('logout').addEventListener('click', () => run(logOut));
	$('preset').addEventListener('change', applyPreset);
	$('users').addEventListener('change', () => {
		drawUsers();
		drawSession();
		const s = sessionOf(site(), app(), user());
		if (s) $('token').value = String(s.n);
	});
	$('new-user').addEventListener('input', drawSession);
	$('site').addEventListener('change', drawPhone);
	$('app').addEventListener('change', drawSession);
	$('modes').addEventListener('change', () => run(setMode, { silent: true }));
	for (const id of ['method', 'path', 'headers', 'body', 'token']) {
		$(id).addEventListener('input', () => {
			$('preset').value = 'own';
			$('preset-hint').textContent = '';
		});
	}
}
