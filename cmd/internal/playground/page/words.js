// The two languages. English words are keys of their own for what the gate explains: a
// phrase without a translation stays English, and is marked so.
import { english } from './en.js';
import { chinese, phrases } from './zh.js';

const languages = { en: english, zh: chinese };
export let language = remembered() ?? (preferred().startsWith('zh') ? 'zh' : 'en');

function preferred() {
	const known = (navigator.languages ?? [navigator.language]).find((l) => /^(zh|en)\b/i.test(l));
	return (known ?? 'en').toLowerCase();
}

function remembered() {
	try {
		const saved = localStorage.getItem('language');
		return saved in languages ? saved : null;
	} catch {
		return null; // the browser keeps nothing
	}
}

// Returns the words of a key, with {name} replaced by values. An unknown key gives ''.
export function t(key, values = {}) {
	return (languages[language][key] ?? '').replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
}

// Changes the language and puts the words into the document.
export function setLanguage(to) {
	language = to;
	try {
		localStorage.setItem('language', to);
	} catch { /* then it asks the browser again next time */ }
	applyWords();
}

export function applyWords() {
	document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
	document.title = `wxgate ${t('playground')}`;
	for (const e of document.querySelectorAll('[data-t]')) e.textContent = t(e.dataset.t);
	for (const e of document.querySelectorAll('[data-t-label]')) {
		e.setAttribute('aria-label', t(e.dataset.tLabel));
	}
	for (const b of document.querySelectorAll('[data-language]')) {
		b.setAttribute('aria-pressed', String(b.dataset.language === language));
	}
}

// A pattern of zh.js: {} takes text as it is, {t} text that is translated in turn.
const compiled = phrases.map(([from, to]) => {
	const holes = [];
	const source = from.replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/\{(t?)\}/g, (_, kind) => {
		holes.push(kind);
		return '(.+?)';
	});
	return { pattern: new RegExp(`^${source}$`, 's'), holes, to };
});

// A status with its code, or a list of headers.
const neutral = /^(\d{3} [a-z_]+|[A-Z][\w-]*-[\w-]+(, [A-Z][\w-]+)*)$/;

// Returns an explanation of the gate in the language of the page, or null when there is
// no translation for it.
export function translated(text) {
	if (language === 'en' || neutral.test(text)) return text;
	const refusal = /^(\d{3} [a-z_]+): (.+)$/s.exec(text);
	if (refusal) {
		const why = translated(refusal[2]);
		return why && `${refusal[1]}：${why}`;
	}
	for (const { pattern, holes, to } of compiled) {
		const m = pattern.exec(text);
		if (!m) continue;
		const parts = holes.map((kind, i) => (kind ? translated(m[i + 1]) : m[i + 1]));
		if (parts.includes(null)) continue;
		return to.replace(/\{(\d)\}/g, (_, i) => parts[i]);
	}
	return null;
}
