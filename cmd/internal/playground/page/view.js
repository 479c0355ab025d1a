// The exchange: one request on its way, from top to bottom.
import { $, el, shown, indented } from './dom.js';
import { state } from './state.js';
import { t, translated } from './words.js';

// Draws the exchange in view, and the list of the earlier ones. The returned text tells
// the outcome to who does not see it.
export function draw() {
	const x = state.current;
	$('view').replaceChildren(...(x ? parts(x) : [beginning()]));
	$('curl').hidden = !x;
	$('curl').textContent = t('curl');
	drawHistory();
	if (!x) return '';
	const v = verdict(x);
	return [x.sent.start.replace(/ HTTP.*/, ''), x.answer?.status, v.title, v.text].filter(Boolean).join('. ');
}

function beginning() {
	const user = state.users[0] ?? '';
	const box = (key) => el('span', { class: 'box' }, t(key));
	const arrow = (text) => el('span', { class: 'arrow' }, el('code', {}, text));
	return el('div', { class: 'card start-here' },
		el('p', { class: 'way' }, box('boxPhone'), arrow('Bearer wxs_…'), box('boxGate'),
			arrow('X-WX-OPENID: o…'), box('boxApp')),
		el('h3', {}, t('startTitle')),
		el('ol', {}, ['start1', 'start2', 'start3'].map((key) => el('li', {}, t(key, { user })))),
		el('div', {}, el('button', {
			type: 'button', class: 'main', onclick: () => $('login').requestSubmit(),
		}, t('logIn'))));
}

// Returns how an exchange ended: title and text, and the tone of both.
export function verdict(x) {
	if (x.failed) return { tone: 'broken', title: t('vFailed'), text: t(`error.${x.failed.error}`) };
	const ok = x.answer.status < 400;
	if (x.by === 'gate') {
		if (!ok) {
			const words = t(`code.${codeOf(x)}`) || codeOf(x);
			const away = /unavailable|misconfigured/.test(codeOf(x));
			return { tone: away ? 'broken' : 'refused', title: t(away ? 'vAway' : 'vRefused'), text: words };
		}
		const kind = { login: 'vLogin', logout: 'vLogout' }[x.action] ?? 'vGate';
		return { tone: 'ok', title: t(kind), text: t(`${kind}More`) };
	}
	if (x.by === 'app') {
		if (!ok) return { tone: 'broken', title: t('vAppError'), text: t('vAppErrorMore') };
		const kind = added(x).length ? 'vKnown' : 'vGuest';
		return { tone: 'ok', title: t(kind), text: t(`${kind}More`) };
	}
	const kind = [502, 503, 504].includes(x.answer.status) && x.passed ? 'vNoApp' : 'vCaddy';
	return { tone: ok ? 'ok' : 'broken', title: t(kind), text: t(`${kind}More`) };
}

// Returns the code of a problem, '' for none.
export function codeOf(x) {
	try {
		return JSON.parse(x.answer.body.text).code ?? '';
	} catch {
		return '';
	}
}

const received = (x) => x.app ?? x.passed;
const added = (x) => (received(x)?.lines ?? []).filter((l) => l.by === 'gate' && !sameName(x, l));

// A header that the gate changed, such as Connection, is no identity.
const sameName = (x, l) => x.sent.lines.some((s) => !s.by && s.name.toLowerCase() === l.name.toLowerCase());

function parts(x) {
	const v = verdict(x);
	const sign = { ok: '✓', refused: '✕', broken: '!' }[v.tone];
	return [
		el('div', { class: `verdict ${v.tone}` },
			el('span', { class: 'sign', 'aria-hidden': 'true' }, sign),
			el('strong', {}, x.answer ? `${x.answer.status} · ${v.title}` : v.title),
			el('p', {}, v.text)),
		el('ol', { class: 'steps' },
			step(1, t('stepSent'), '', http(x.sent, 'took', '')),
			step(2, t('stepGate'), '', why(x)),
			receivedStep(x),
			step(4, t('stepAnswer'), x.answer ? t('by', { who: t(`who_${x.by}`) }) : '', answer(x))),
	];
}

function step(number, title, note, ...content) {
	return el('li', { class: content.some(Boolean) ? 'step' : 'step idle' },
		el('span', { class: 'number', 'aria-hidden': 'true' }, String(number)),
		el('h3', {}, title, note && el('span', {}, note)),
		content);
}

function receivedStep(x) {
	if (x.app) return step(3, t('stepApp'), '', http(x.app, 'put', ''));
	if (!x.passed) return idle(t('stepApp'), t('notPassed'));
	if (x.by === 'caddy' && x.answer.status < 500) {
		return step(3, t('stepPassed'), '', el('p', {}, t('noProxy')), http(x.passed, 'put', ''));
	}
	return idle(t('stepApp'), t('notThere'));
}

function idle(title, text) {
	const e = step(3, title, '', el('p', {}, text));
	e.classList.add('idle');
	return e;
}

// Headers of an answer that say nothing about the gate or the app.
const dull = /^(date|server|via|vary|content-length|cache-control|connection|keep-alive|alt-svc|transfer-encoding)$/i;

function answer(x) {
	if (!x.answer) return el('p', {}, t(`error.${x.failed.error}`));
	return http(x.answer, 'got', dull);
}

// Returns a message as lines. Marks and words tell what was removed and added; del and ins
// tell it to screen readers.
function http(m, role, hidden) {
	const lines = m.lines.filter((l) => !hidden || !hidden.test(l.name));
	if (role === 'put') lines.sort((a, b) => rank(a) - rank(b));
	const rest = m.lines.length - lines.length;
	return el('div', { class: 'http' },
		el('div', { class: 'start' }, el('span'), el('span', {}, shown(m.start))),
		lines.map((l) => headerLine(l, role)),
		rest > 0 && el('div', { class: 'more' }, el('span'), el('span', {}, t('moreHeaders', { n: rest }))),
		bodyOf(m));
}

// Of the app's headers, those that the client sent come first, then the gate's, then the
// proxy's.
const rank = (l) => ({ gate: 1, proxy: 2 }[l.by] ?? 0);

function headerLine(l, role) {
	const who = l.by === 'proxy' ? 'Proxy' : 'Gate';
	const mark = !l.by ? '' : role === 'took' ? '−' : '+';
	return el(!l.by ? 'div' : role === 'took' ? 'del' : 'ins', { class: l.by ?? '' },
		el('span', { class: 'mark', 'aria-hidden': 'true' }, mark),
		el('span', { class: 'text' }, el('span', { class: 'name' }, shown(l.name)), ': ', shown(l.value)),
		l.by && el('span', { class: 'tag' }, t(role + who)));
}

function bodyOf(m) {
	if (!m.body) return null;
	return [
		m.body.binary && el('div', { class: 'more' }, el('span'),
			el('span', {}, t('binary', { n: m.body.size }))),
		el('div', { class: 'body', ...scrolls(m.body) },
			el('span'), el('span', {}, shown(m.body.binary ? m.body.text : indented(m.body.text)))),
		m.cut && el('div', { class: 'more' }, el('span'), el('span', {}, t(`cut_${m.cut}`))),
	];
}

// A long body scrolls, so the keyboard has to reach it.
const scrolls = (body) => (body.text.length > 1000
	? { tabindex: 0, role: 'group', 'aria-label': t('body') } : {});

// Returns the rows of explain, and which headers the gate put in.
function why(x) {
	const rows = [];
	for (const { name, texts } of grouped(x.explain)) {
		rows.push(el('dt', {}, t(`why.${name}`)), texts.map((text) => {
			const word = translated(text);
			return el('dd', word === null ? { lang: 'en' } : {}, shown(word ?? text));
		}));
	}
	const put = added(x).map((l) => l.name).join(', ');
	if (put) rows.push(el('dt', {}, t('why.added')), el('dd', {}, put));
	return el('dl', { class: 'why' }, rows.flat());
}

// Joins the texts of a row, and headers that go for the same reason.
function grouped(explain) {
	const rows = [];
	for (const { name, text } of explain) {
		if (name === 'site') continue; // it was chosen
		if (name) rows.push({ name, texts: [] });
		const texts = rows.at(-1).texts, reason = text.indexOf(': ');
		const same = rows.at(-1).name === 'removed'
			? texts.findIndex((one) => one.endsWith(text.slice(reason))) : -1;
		if (same < 0) texts.push(text);
		else texts[same] = texts[same].replace(': ', `, ${text}`.slice(0, reason + 2) + ': ');
	}
	return rows;
}

function drawHistory() {
	$('history').hidden = state.exchanges.length < 2;
	$('earlier').replaceChildren(...state.exchanges.map((x) => {
		const line = x.sent.start.replace(/ HTTP.*/, '');
		return el('li', {}, el('button', {
			type: 'button', 'aria-current': x === state.current ? 'true' : null,
			onclick: () => {
				state.current = x;
				draw();
				$('exchange').focus();
			},
		}, el('span', { class: 'status' }, String(x.answer?.status ?? '—')),
			el('span', {}, shown(line)), el('span', { class: 'who' }, x.user ?? '')));
	}));
}
