// Elements and text. Everything that comes from outside becomes a text node.

// Returns the element with an id.
export const $ = (id) => document.getElementById(id);

// Returns an element with attributes and children. A child is a node, a string, or
// nothing (null and false).
export function el(tag, attributes = {}, ...children) {
	const e = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
		else if (value === true) e.setAttribute(name, '');
		else if (value !== false && value != null) e.setAttribute(name, value);
	}
	e.append(...children.flat().filter((c) => c != null && c !== false));
	return e;
}

// Characters that have no shape of their own, or change the order of others: an answer
// could look like another one with them. Line feeds and tabs stay.
const unseen = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/u;
const token = /wxs_[A-Za-z0-9_-]{20,}/;
const special = new RegExp(`${token.source}|${unseen.source}`, 'gu');

// Returns text as nodes, with unseen characters as their code points and with tokens
// shortened: they are for machines, and a screen is seen by many.
export function shown(text) {
	const out = [];
	let end = 0;
	for (const m of text.matchAll(special)) {
		out.push(text.slice(end, m.index));
		end = m.index + m[0].length;
		if (m[0].startsWith('wxs_')) {
			out.push(el('span', { class: 'shortened' }, shorten(m[0])));
		} else {
			const code = m[0].codePointAt(0).toString(16).toUpperCase().padStart(4, '0');
			out.push(el('span', { class: 'escaped' }, `U+${code}`));
		}
	}
	out.push(text.slice(end));
	return out;
}

export const shorten = (text) => `${text.slice(0, 10)}…${text.slice(-4)}`;

// Indents JSON without reading it, so that numbers and odd names stay as they were sent.
// Returns other text unchanged.
export function indented(text) {
	try {
		JSON.parse(text);
	} catch {
		return text;
	}
	let out = '', depth = 0;
	const line = () => `\n${'  '.repeat(depth)}`;
	for (const [part] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g)) {
		if (part === '{' || part === '[') {
			depth++;
			out += part + line();
		} else if (part === '}' || part === ']') {
			depth--;
			out = /[{[]\s*$/.test(out) ? out.trimEnd() + part : out + line() + part;
		} else if (part === ',') out += part + line();
		else out += part === ':' ? ': ' : part;
	}
	return out;
}
