// Drives the playground in Chromium. Arguments: the page's URL, the folder of the page's
// files. It prints each fault, and ends with 1 when there is one.
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { chromium } = createRequire(join(process.env.WXGATE_NPM, 'x.js'))('playwright-core');
const [url, folder] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(join(folder, name)));
const { english } = await load('en.js');
const { chinese } = await load('zh.js');

let faults = 0;
function check(ok, ...what) {
	if (ok) return;
	faults++;
	console.log('FAULT', ...what);
}

checkWords();
const browser = await chromium.launch({
	executablePath: process.env.CHROMIUM, timeout: 60_000,
	args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
});
try {
	await byKeyboard();
	await inChinese();
} finally {
	await browser.close();
}
process.exit(faults ? 1 : 0);

// Every word is there in both languages.
function checkWords() {
	const keys = (words) => Object.keys(words).sort().join('\n');
	check(keys(english) === keys(chinese), 'the languages have different words');
	const text = readdirSync(folder).filter((name) => /\.(js|html)$/.test(name))
		.map((name) => readFileSync(join(folder, name), 'utf8')).join('\n');
	const used = text.matchAll(/\bt\('([\w.]+)'|data-t(?:-label)?="([\w.]+)"/g);
	for (const [, a, b] of used) check((a ?? b) in english, 'no word for', a ?? b);
}

// Opens the page and counts what must not happen.
async function open(options) {
	const context = await browser.newContext(options);
	const page = await context.newPage();
	page.setDefaultTimeout(Number(process.env.PATIENCE ?? 60) * 1000);
	page.on('console', (m) => check(m.type() !== 'error' && m.type() !== 'warning', 'console:', m.text()));
	page.on('pageerror', (error) => check(false, 'error:', error.stack));
	page.on('request', (r) => check(r.url().startsWith(`${url}/`), 'asks', r.url()));
	page.on('dialog', (d) => check(false, 'dialog', d.message()));
	await page.goto(url);
	await page.waitForSelector('body[data-ready]');
	return { page, close: () => context.close() };
}

// Does something that starts an action of the page, and waits for its end.
async function after(page, act) {
	const runs = await page.evaluate(() => document.body.dataset.runs);
	await act();
	await page.waitForFunction((before) => document.body.dataset.runs !== before, runs);
}

function text(page, selector) {
	return page.locator(selector).first().innerText();
}

async function expect(page, selector, ...parts) {
	const got = await text(page, selector);
	for (const part of parts) check(got.includes(part), selector, 'has no', part, 'but', got);
}

// On a phone's width, with the keyboard alone, by light, without motion.
async function byKeyboard() {
	const { page, close } = await open({
		viewport: { width: 360, height: 740 }, locale: 'en-US', colorScheme: 'light',
		reducedMotion: 'reduce',
	});
	await expect(page, 'h1', 'playground');
	await structure(page);
	await page.keyboard.press('Tab');
	check(await page.evaluate(() => document.activeElement.className === 'skip'), 'no skip link first');
	await tabTo(page, '#users input');
	await page.keyboard.press('ArrowDown');
	await page.keyboard.press('ArrowDown');
	check(await page.isVisible('#new-user'), 'a new user has no field for the name');
	await tabTo(page, '#new-user');
	await page.keyboard.type('爱丽丝');
	await after(page, () => page.keyboard.press('Enter'));
	await expect(page, '.verdict', '200', 'Logged in');
	check(await page.evaluate(() => document.activeElement.id) === 'exchange', 'the focus is lost');
	await expect(page, '#session', '爱丽丝 is logged in');
	await tabTo(page, '#preset', 'Shift+Tab');
	await page.keyboard.press('p'); // Pretend to be …
	check(await page.inputValue('#preset') === 'forge', 'no preset is chosen by its letter');
	await tabTo(page, '#call button');
	await after(page, () => page.keyboard.press('Space'));
	await expect(page, '.verdict', '200', 'The app knows who calls');
	check(await page.locator('.http del').count() === 3, 'not three headers are taken away');
	check(await page.locator('.http ins.gate').count() === 4, 'not four headers are put in');
	await expect(page, '.http del', '−', 'Authorization', 'taken away by the gate');
	await expect(page, '.http ins.gate', '+', 'X-Wx-', 'put in by the gate');
	check(!(await text(page, '#view')).match(/wxs_[\w-]{20}/), 'a whole token is on the screen');
	await expect(page, '#status', 'GET /hello. 200. The app knows who calls');
	const exchange = await page.locator('#exchange').boundingBox();
	check(exchange.y > -5 && exchange.y < 700, 'the exchange is out of sight, at', exchange.y);
	check(await page.evaluate(() => document.getAnimations().length === 0), 'something moves');
	await contrast(page, 'light');
	await narrow(page);
	await tabTo(page, '#earlier button:not([aria-current])');
	await page.keyboard.press('Enter');
	await expect(page, '.verdict', 'Logged in');
	await close();
}

// On a desk, in Chinese by the browser's language, in the dark.
async function inChinese() {
	const { page, close } = await open({
		viewport: { width: 1280, height: 900 }, locale: 'zh-CN', colorScheme: 'dark',
	});
	await expect(page, 'h1', '演练场');
	check(await page.evaluate(() => document.documentElement.lang) === 'zh-CN', 'lang is not zh-CN');
	await after(page, () => page.click('#login .main'));
	await expect(page, '.verdict', '登录成功');
	await after(page, () => page.click('#logout'));
	await expect(page, '.verdict', '已退出登录');
	await page.uncheck('#unionid');
	await after(page, () => page.click('#login .main'));
	for (const [preset, ...want] of [
		['old', '401', 'token 无效'], ['guest', '401', '没有 token'], ['forge', '200', '知道是谁'],
		['spelling', '200', '知道是谁'], ['connection', '200', '知道是谁'], ['twoTokens', '400', '两个'],
		['path', '401'], ['endpoint', '404'], ['session', '200', '网关直接响应'],
	]) {
		await page.selectOption('#preset', preset);
		await after(page, () => page.click('#call .main'));
		await expect(page, '.verdict', ...want);
		check(await page.locator('.why [lang=en]').count() === 0, preset, 'is not in Chinese:', await text(page, '.why'));
	}
	check(!(await page.content()).includes('X-Wx-Unionid: o'), 'there is a unionid');
	await contrast(page, 'dark');
	await after(page, () => page.click('#phone-number button'));
	await expect(page, '#view', '13580006666', '网关直接响应');
	await after(page, () => page.click('#open-data button'));
	await expect(page, '#view', '"nickName": "Ada"');
	await nasty(page);
	await mistakes(page);
	await page.click('[data-language=en]');
	await expect(page, '#login h3', 'Who holds it');
	check(await page.inputValue('#path') === '/nasty', 'the language changes the path');
	await outage(page);
	await close();
}

// What an app answers stays text.
async function nasty(page) {
	await page.selectOption('#preset', 'own');
	await page.fill('#path', '/nasty');
	await after(page, () => page.click('#call .main'));
	await expect(page, '#view', '<script>window.pwned = 1</script>', '<img src=x onerror="window.pwned=1">',
		'U+202E', '<b>header</b>');
	const found = await page.evaluate(() => ({
		pwned: window.pwned, elements: document.querySelectorAll('#view img, #view script, #view b').length,
	}));
	check(found.pwned === undefined && found.elements === 0, 'the answer is markup', JSON.stringify(found));
}

async function mistakes(page) {
	await page.fill('#headers', 'no colon');
	await after(page, () => page.click('#call .main'));
	await expect(page, '#view .notice', 'no colon');
	await page.fill('#headers', '');
	await page.fill('#data', '[');
	await after(page, () => page.click('#open-data button'));
	await expect(page, '#view .notice', 'JSON');
}

// Without WeChat nobody logs in, and sessions go on.
async function outage(page) {
	await after(page, () => page.check('#modes [value=busy]'));
	await after(page, () => page.click('#login .main'));
	await expect(page, '.verdict', '503', 'WeChat cannot be asked');
	await page.fill('#path', '/hello');
	await after(page, () => page.click('#call .main'));
	await expect(page, '.verdict', '200', 'The app knows who calls');
	await after(page, () => page.check('#modes [value=works]'));
}

// Presses Tab until an element has the focus. Each one on the way shows that it has.
async function tabTo(page, selector, key = 'Tab') {
	for (let i = 0; i < 60; i++) {
		await page.keyboard.press(key);
		const at = await page.evaluate((wanted) => {
			const e = document.activeElement, chip = e.closest('.chip') ?? e;
			return { here: e.matches(wanted), name: e.outerHTML.slice(0, 80), outline: getComputedStyle(chip).outlineStyle };
		}, selector);
		check(at.outline !== 'none', 'no focus is visible on', at.name);
		if (at.here) return;
	}
	check(false, 'the keyboard does not reach', selector);
}

// Landmarks, headings and labels, for who hears the page.
async function structure(page) {
	const bad = await page.evaluate(() => {
		const out = [];
		for (const [selector, n] of [['main', 1], ['h1', 1], ['body > header', 1], ['body > footer', 1], ['[role=status]', 1]]) {
			const found = document.querySelectorAll(selector).length;
			if (found !== n) out.push(`${found} of ${selector}`);
		}
		for (const e of document.querySelectorAll('input, select, textarea')) {
			if (![...(e.labels ?? [])].some((l) => l.textContent.trim())) out.push(`no label: ${e.id}`);
		}
		for (const e of document.querySelectorAll('button, a, legend')) {
			if (!e.textContent.trim()) out.push(`no text: ${e.outerHTML}`);
		}
		for (const e of document.querySelectorAll('img:not([alt])')) out.push(`no alt: ${e.src}`);
		for (const e of document.querySelectorAll('[aria-labelledby], [aria-describedby]')) {
			const id = e.getAttribute('aria-labelledby') ?? e.getAttribute('aria-describedby');
			if (!document.getElementById(id)) out.push(`no element ${id}`);
		}
		const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
		if (new Set(ids).size !== ids.length) out.push('an id is there twice');
		return out;
	});
	check(bad.length === 0, bad.join('; '));
}

// Nothing is wider than a phone.
async function narrow(page) {
	const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
	check(wide <= 0, 'the page is wider than the phone by', wide);
}

// Every text has a contrast of 4.5:1 to its ground (WCAG 1.4.3).
async function contrast(page, scheme) {
	await page.waitForFunction(() => document.getAnimations().length === 0);
	const bad = await page.evaluate(() => {
		const rgb = (color) => color.match(/[\d.]+/g).map(Number);
		const light = (color) => {
			const [r, g, b] = rgb(color).slice(0, 3).map((c) => c / 255)
				.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
			return 0.2126 * r + 0.7152 * g + 0.0722 * b;
		};
		const ground = (e) => {
			for (; e; e = e.parentElement) {
				const color = getComputedStyle(e).backgroundColor;
				if ((rgb(color)[3] ?? 1) === 1) return color;
			}
			return 'rgb(255, 255, 255)';
		};
		const out = [];
		for (const e of document.querySelectorAll('body *')) {
			const own = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
			if (!own && !('value' in e) || !e.checkVisibility() || e.matches('.hidden, option, input[type=radio], input[type=checkbox]')) continue;
			const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
			const ratio = (a + 0.05) / (b + 0.05);
			if (ratio < 4.5) out.push(`${ratio.toFixed(2)} ${e.outerHTML.slice(0, 80)}`);
		}
		return out;
	});
	check(bad.length === 0, scheme, bad.join('\n'));
}
