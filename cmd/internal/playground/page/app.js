// The playground: a phone on one side, what the gate makes of its requests on the other.
import { $, el } from './dom.js';
import { post, Failure } from './api.js';
import { connect, drawPhone } from './phone.js';
import { state, curlOf } from './state.js';
import { draw } from './view.js';
import { applyWords, setLanguage, t } from './words.js';

let running = false;
let runs = 0;

// Runs one action of the phone and shows how it ended.
async function run(action, { silent = false } = {}) {
	if (running) return;
	running = true;
	document.body.setAttribute('aria-busy', 'true');
	const slow = setTimeout(() => {
		$('waiting').hidden = false;
		say(t('waiting'));
	}, 400);
	const before = state.current;
	try {
		await action();
		if (!silent) show();
	} catch (error) {
		if (state.current === before) showFailure(error);
		if (!(error instanceof Failure)) throw error;
	} finally {
		running = false;
		clearTimeout(slow);
		$('waiting').hidden = true;
		document.body.removeAttribute('aria-busy');
		document.body.dataset.runs = String(++runs); // tests wait for it
	}
}

const say = (text) => { $('status').textContent = text; };

function show() {
	drawPhone();
	say(draw());
	fresh();
}

// Shows why nothing was sent, above the exchange of before.
function showFailure(error) {
	const code = error instanceof Failure ? error.code : 'failed';
	const text = t(`error.${code}`, { detail: error.detail ?? error.message }) || t('error.bad_call');
	if (state.sites.length) draw();
	else $('view').replaceChildren();
	$('view').prepend(el('p', { class: 'notice' }, text));
	say(text);
	fresh();
}

// On a narrow screen the exchange is below the phone, out of sight.
function fresh() {
	$('view').classList.remove('fresh');
	void $('view').offsetWidth; // so that the animation begins anew
	$('view').classList.add('fresh');
	const focused = document.activeElement;
	if (focused === document.body || !focused.checkVisibility()) { // what had the focus is gone
		$('exchange').focus({ preventScroll: true });
	}
	if (matchMedia('(max-width: 59.99rem)').matches) $('exchange').scrollIntoView();
}

async function copy() {
	const x = state.current;
	let done = 'copied';
	try {
		await navigator.clipboard.writeText(curlOf(x, state.sites[x.siteIndex]));
	} catch {
		done = 'notCopied';
	}
	$('curl').textContent = t(done);
	say(t(done));
}

async function start() {
	applyWords();
	for (const b of document.querySelectorAll('[data-language]')) {
		b.addEventListener('click', () => {
			setLanguage(b.dataset.language);
			drawPhone();
			draw();
		});
	}
	try {
		Object.assign(state, await post('state'));
	} catch (error) {
		showFailure(error);
		return;
	}
	drawPhone();
	draw();
	connect(run);
	$('curl').addEventListener('click', copy);
	document.body.dataset.ready = 'true';
}

start();
